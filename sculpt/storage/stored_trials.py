"""Fast access to many values of trials: Optuna's own way takes a millisecond for each."""

import gc
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic_core import from_json
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    DateTime,
    Select,
    TableClause,
    column,
    func,
    select,
    table,
)
from sqlalchemy.dialects import postgresql, sqlite

from sculpt.storage.attributes import ATTEMPTS, EXCUSED, RETRY_OF
from sculpt.storage.study_storage import StudyStorage

# Tables and not get_trials, because asking must not slow down as a study grows: 10,000 trials of
# 40 attributes take 13 seconds as Optuna's objects, and half a second this way. Optuna versions
# its tables, and a storage of another version is refused when it is opened.
_TRIALS = table(
    "trials",
    *map(column, ("trial_id", "number", "state", "study_id")),
    *(column(name, DateTime) for name in ("datetime_start", "datetime_complete")),
)
_PARAMS = table(
    "trial_params",
    *map(column, ("param_id", "trial_id", "param_name", "param_value", "distribution_json")),
)
_VALUES = table("trial_values", *map(column, ("trial_id", "objective", "value", "value_type")))
_REPORTED = table(
    "trial_intermediate_values",
    *map(column, ("trial_id", "step", "intermediate_value", "intermediate_value_type")),
)
_USER, _SYSTEM = (
    table(f"trial_{kind}_attributes", *map(column, ("trial_id", "key", "value_json")))
    for kind in ("user", "system")
)

_OF_STUDY = table("study_system_attributes", *map(column, ("study_id", "key", "value_json")))

_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
"""Numbers that are stored by their name."""


def read_trials(study: Study, storage: BaseStorage) -> list[FrozenTrial]:
    """Read all trials of a study, in the order of their numbers.

    A storage from `open_storage` is read at once; any other one as Optuna reads it.
    """
    if not isinstance(storage, StudyStorage):
        return study.get_trials(deepcopy=False)
    enabled = gc.isenabled()
    gc.disable()  # it would walk what is being read over and over, for nothing
    try:
        return storage.patience(_read_trials, study, storage)
    finally:
        if enabled:
            gc.enable()


def attempt_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """Return the system attributes that say which attempt a trial is."""
    of_attempts = (RETRY_OF, ATTEMPTS, EXCUSED)
    return {key: trial.system_attrs[key] for key in of_attempts if key in trial.system_attrs}


def _read_trials(study: Study, storage: StudyStorage) -> list[FrozenTrial]:
    study_id = storage.get_study_id_from_name(study.study_name)
    of_study = _TRIALS.c.study_id == study_id
    chosen = select(_TRIALS.c.trial_id).where(of_study)
    with storage.engine.connect() as connection:
        # States first: what a finished trial has found was written before it was finished.
        trials = connection.execute(
            select(_TRIALS).where(of_study).order_by(_TRIALS.c.number)
        ).all()
        user = _read_attributes(connection, _USER, chosen)
        system = _read_attributes(connection, _SYSTEM, chosen)
        params: dict[int, dict[str, Any]] = defaultdict(dict)
        distributions: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        for row in _rows(connection, _PARAMS, chosen, _PARAMS.c.param_id):
            kind = _distribution(row.distribution_json)
            params[row.trial_id][row.param_name] = kind.to_external_repr(row.param_value)
            distributions[row.trial_id][row.param_name] = kind
        values: dict[int, list[float]] = defaultdict(list)
        for row in _rows(connection, _VALUES, chosen, _VALUES.c.objective):
            values[row.trial_id].append(_NOT_FINITE.get(row.value_type, row.value))
        reported: dict[int, dict[int, float]] = defaultdict(dict)
        for row in _rows(connection, _REPORTED, chosen, _REPORTED.c.step):
            known = _NOT_FINITE.get(row.intermediate_value_type, row.intermediate_value)
            reported[row.trial_id][row.step] = known
    return [
        FrozenTrial(
            number=trial.number,
            state=TrialState[trial.state],
            value=None,
            values=values.get(trial.trial_id),
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
            params=params.get(trial.trial_id, {}),
            distributions=distributions.get(trial.trial_id, {}),
            user_attrs=user.get(trial.trial_id, {}),
            system_attrs=system.get(trial.trial_id, {}),
            intermediate_values=reported.get(trial.trial_id, {}),
            trial_id=trial.trial_id,
        )
        for trial in trials
    ]


def _rows(
    connection: Connection, found: TableClause, chosen: Select[Any], order: ColumnElement[Any]
) -> CursorResult[Any]:
    """Return the rows of a table that belong to the chosen trials, in an order."""
    rows = select(found).where(found.c.trial_id.in_(chosen))
    return connection.execute(rows.order_by(order))


def write_attributes(storage: StudyStorage, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a running trial, all or none of them, in one transaction;
    UpdateFinishedTrialError if it is finished."""
    with storage.engine.begin() as connection:
        _upsert(connection, _USER, "trial_id", trial_id, attributes)
        # After the write, which has locked the trial: to finish it waits for the commit.
        state = connection.execute(
            select(_TRIALS.c.state).where(_TRIALS.c.trial_id == trial_id)
        ).scalar_one()
        storage.check_trial_is_updatable(trial_id, TrialState[state])


def write_study_attributes(
    storage: BaseStorage, study_id: int, attributes: Mapping[str, Any]
) -> None:
    """Set system attributes of a study, all or none of them where it is kept in a database."""
    if not isinstance(storage, StudyStorage):
        for key, value in attributes.items():
            storage.set_study_system_attr(study_id, key, value)
        return

    def write() -> None:
        with storage.engine.begin() as connection:
            _upsert(connection, _OF_STUDY, "study_id", study_id, attributes)

    if attributes:
        storage.patience(write)


def _upsert(
    connection: Connection, kept: TableClause, owner: str, number: int, found: Mapping[str, Any]
) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    given = dialect.insert(kept)
    changed = {"value_json": given.excluded.value_json}
    rows = [{owner: number, "key": key, "value_json": json.dumps(found[key])} for key in found]
    upsert = given.on_conflict_do_update(index_elements=[owner, "key"], set_=changed)
    connection.execute(upsert, rows)


def _read_attributes(
    connection: Connection, attributes: TableClause, chosen: Select[Any]
) -> dict[int, dict[str, Any]]:
    """Return the attributes of each of the chosen trials.

    The database joins a trial's attributes into one JSON object: to fetch and decode hundreds
    of thousands of small ones would take most of the time.
    """
    quoted = func.replace(func.replace(attributes.c.key, "\\", "\\\\"), '"', '\\"')
    entry = '"' + quoted + '":' + attributes.c.value_json
    query = (
        select(attributes.c.trial_id, func.aggregate_strings(entry, ","))
        .where(attributes.c.trial_id.in_(chosen))
        .group_by(attributes.c.trial_id)
    )
    rows = connection.execute(query).all()
    # As one document, and by a parser that is three times as fast as Python's own.
    objects = from_json(f"[{','.join(f'{{{entries}}}' for _, entries in rows)}]")
    return {trial: found for (trial, _), found in zip(rows, objects, strict=True)}


@lru_cache(maxsize=1024)
def _distribution(written: str) -> BaseDistribution:
    return json_to_distribution(written)
