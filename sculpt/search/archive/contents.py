"""What stands in an archive: the study with its settings, and one line for each trial.

The words are Optuna's. There is what asking reads, and nothing of what workers need to go on.
"""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import Field

from sculpt.config import Section
from sculpt.search.archive.privacy import Privacy
from sculpt.search.storage.attributes import ATTEMPTS, EXCUSED, PROBLEMS, RETRY_OF
from sculpt.search.storage.trials import retries_left

FORMAT_FAMILY, FORMAT = "sculpt-archive-", "sculpt-archive-1"
"""Raised when older versions could misread it."""

RECORDS = "records"
"""Folder of the records: `base.json`, `3.json`."""

Json = dict[str, Any]
"""An object of JSON, of Optuna's or a plug-in's, that is kept as it is."""

Distributions = dict[str, Json]


class Part(Section):
    """One of the three Optuna studies that a study is made of."""

    directions: Annotated[list[Literal["minimize", "maximize"]], Field(min_length=1)]
    metric_names: list[str] | None
    user_attrs: Json
    distributions: Distributions
    """Of each parameter; a trial whose own is another has that in its line."""
    trials: Annotated[int, Field(ge=0)]
    """How many lines its file has."""


class Parts(Section):
    """Each has a file of its name, which ends in `.jsonl`."""

    base: Part
    candidates: Part
    confirmation: Part | None


class Head(Section):
    """The file `study.json`."""

    format: str
    sculpt: str
    """Version of the writer."""
    study: str
    settings: Json
    images: str
    total: int
    studies: Parts
    records: list[int | Literal["base"]]
    """Of these trials there is a record."""


class Line(Section):
    """A trial."""

    number: int
    state: Literal["COMPLETE", "PRUNED", "FAIL", "WAITING"]
    params: Json
    values: list[float] | None
    user_attrs: Json
    start: str | None
    complete: str | None
    distributions: Distributions = Field(default={})
    intermediate_values: dict[str, float] = Field(default={})
    system_attrs: Json = Field(default={})


def dumps(value: Any) -> str:
    """Return JSON on one line, floats exact; in ASCII, so that no letter breaks lines or files."""
    return json.dumps(value, separators=(",", ":"))


def usual_distributions(trials: list[FrozenTrial], privacy: Privacy) -> Distributions:
    """Return the distribution of each parameter that the first trial with it has."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        found = trial.distributions | found
    return {name: _as_json(found[name], privacy) for name in sorted(found)}


def line_of(trial: FrozenTrial, usual: Distributions, privacy: Privacy) -> Json:
    """Return a trial as the line of it.

    One that is running is written as failed without an error of its own, which is read as
    interrupted: nobody will ever see this attempt end here. Where that would be read as failed,
    because it has been interrupted as often as it may be, it is written as queued.
    """
    user = {
        name: (privacy.hide_message if name in PROBLEMS else privacy.hide)(value)
        for name, value in sorted(trial.user_attrs.items())
    }
    system = {key: trial.system_attrs[key] for key in _SYSTEM if key in trial.system_attrs}
    state, start = trial.state, trial.datetime_start
    if state is TrialState.RUNNING:
        last = retries_left(trial) <= 0
        state, start = (TrialState.WAITING, None) if last else (TrialState.FAIL, start)
    own = {name: _as_json(kind, privacy) for name, kind in trial.distributions.items()}
    maybe = {
        "distributions": {name: own[name] for name in sorted(own) if own[name] != usual.get(name)},
        "intermediate_values": {
            str(step): value for step, value in sorted(trial.intermediate_values.items())
        },
        "system_attrs": system,
    }
    return {
        "number": trial.number,
        "state": state.name,
        "params": privacy.hide(trial.params),
        "values": trial.values,
        "user_attrs": user,
        "start": start.isoformat() if start else None,
        "complete": trial.datetime_complete.isoformat() if trial.datetime_complete else None,
    } | {key: value for key, value in maybe.items() if value}


def trial_of(line: Line, usual: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return the trial of a line; Optuna numbers trials itself.

    Raises:
        ValueError: there is no such trial in Optuna, for example without values though complete.
        KeyError: a parameter has no distribution.
    """
    own = {name: distribution_of(written) for name, written in line.distributions.items()}
    trial = create_trial(
        state=TrialState[line.state],
        values=line.values,
        params=line.params,
        distributions={name: own[name] if name in own else usual[name] for name in line.params},
        user_attrs=line.user_attrs,
        system_attrs=line.system_attrs,
        intermediate_values={int(step): value for step, value in line.intermediate_values.items()},
    )
    trial.datetime_start = datetime.fromisoformat(line.start) if line.start else None
    trial.datetime_complete = datetime.fromisoformat(line.complete) if line.complete else None
    return trial


def distribution_of(written: Json) -> BaseDistribution:
    """Return a distribution that was written down.

    Raises:
        ValueError: it is none of Optuna's.
        KeyError: it lacks something.
        TypeError: it has something that it should not.
    """
    return json_to_distribution(json.dumps(written))


_SYSTEM = (RETRY_OF, ATTEMPTS, EXCUSED)
"""All that is read of the system attributes of trials."""


def _as_json(distribution: BaseDistribution, privacy: Privacy) -> Json:
    written: Json = privacy.hide(json.loads(distribution_to_json(distribution)))
    return written
