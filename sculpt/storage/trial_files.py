"""Files of finished trials: the whole record and the networks, each in a file of its own.

The storage holds only the few numbers that queries need; see `summary`. A finished trial of
Optuna's cannot be changed: later measurements of it are attributes of its study.
"""

import json
import tempfile
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.artifacts import upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sculpt.dominance import non_dominated
from sculpt.errors import InputError, SculptWarning, StorageError
from sculpt.quantities import SIGNALS, stored
from sculpt.record import TrialRecord
from sculpt.registry import OBJECTIVES
from sculpt.storage.store import Store
from sculpt.storage.trials import ClaimedTrial
from sculpt.typed_json import from_json, to_json

RECORD_FILE = "record.json"

FILES = "sculpt:files"
"""System attribute of a trial: names of its files to ids of its artifacts. Optuna gives a retry the
artifacts of the attempts before it, in no order."""

LATER = "afterwards/"
"""Prefix of an attribute of a study, before the number of a trial: its later measurements."""

Attributes = dict[str, Any]
"""Quantities of a trial by name (`sculpt.quantities`), as they are kept beside its record."""


def keep(store: Store, claimed: ClaimedTrial, record: TrialRecord, files: list[Path]) -> None:
    """Keep a finished trial's record, the files that belong to it, and its summary."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, RECORD_FILE)
        text = json.dumps(to_json(record), indent=1, allow_nan=False)
        written.write_text(text, encoding="utf-8")
        upload = partial(
            upload_artifact,
            artifact_store=store.artifacts,
            study_or_trial=claimed.trial,
            storage=store.storage,
        )
        ids = {file.name: upload(file_path=str(file)) for file in [written, *files]}
    store.storage.set_trial_system_attr(claimed.trial_id, FILES, ids)
    claimed.write(summary(record))


def summary(record: TrialRecord) -> Attributes:
    """Return the few numbers of a record that are kept as attributes of its trial."""
    signal = {
        f"{step}_{name}": quantity.read(found)
        for step, found in record.signal.items()
        for name, quantity in SIGNALS.items()
    }
    known = {quantity.name: quantity.read(record) for quantity in stored()}
    return {"role": record.role, "objectives": record.objectives} | known | signal


def read_record(store: Store, trial: FrozenTrial) -> TrialRecord:
    """Read the record of a finished trial; StorageError if it is not where it was, or damaged."""
    mend = f"; restore {store.artifacts.location} from a copy"
    written = _read(store, trial, RECORD_FILE)
    return from_json(TrialRecord, written, f"the record of trial {trial.number}", mend)


def network_file(seed: int) -> str:
    """Return the name of the file of a seed's network among a trial's artifacts."""
    return f"network-seed-{seed}.safetensors"


def read_network(store: Store, trial: FrozenTrial, seed: int, path: Path) -> None:
    """Copy the network of one seed of a trial to a file; StorageError if it is not there."""
    try:
        path.write_bytes(_read(store, trial, network_file(seed)))
    except StorageError as error:
        kept = store.config.search.networks
        if kept == "all":
            raise
        raise StorageError(
            f"the network of trial {trial.number} must have been kept to be read, but the study "
            f"has search.networks {kept} ({error}); train this configuration again, in a study of "
            "its own"
        ) from None


def discard_networks(store: Store, study: optuna.Study, trial: FrozenTrial) -> None:
    """Remove the networks that a study does not keep (`search.networks`) once a trial is complete.

    Under `front` a candidate's networks stay as long as no other of its budget dominates it, and
    the base's and opponents', too; the confirmation's go. Several workers may do this at once: at
    worst a network stays too long. A file that cannot be removed is a warning, because it does no
    harm.
    """
    for loser in _losers(store, study, trial):
        files: dict[str, str] = loser.system_attrs.get(FILES) or {}
        for name in files.keys() - {RECORD_FILE}:
            try:
                with suppress(ArtifactNotFound):
                    store.artifacts.remove(files[name])
            except Exception as error:  # drivers have errors of their own
                warnings.warn(
                    f"{name} of trial {loser.number} cannot be removed from "
                    f"{store.artifacts.location} ({error}); the study goes on",
                    SculptWarning,
                    stacklevel=2,
                )


def _losers(store: Store, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
    policy = store.config.search.networks
    references = [part.study_name for part in (store.base, store.opponents) if part]
    if policy == "all" or (policy == "front" and study.study_name in references):
        return []
    if policy == "none" or study.study_name != store.candidates.study_name:
        return [trial]
    budget = trial.params.get("budget")
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    others = [t for t in trials if t.number != trial.number and t.params.get("budget") == budget]
    signs = [1 if direction is StudyDirection.MINIMIZE else -1 for direction in study.directions]
    values = np.array([t.values for t in [*others, trial]], dtype=float) * signs
    *still, own = non_dominated(values)
    if not own:
        return [trial]
    # Only trials that were on the front until now; the others lost their networks before.
    before = non_dominated(values[:-1])
    return [t for t, was, stays in zip(others, before, still, strict=True) if was and not stays]


def keep_later(study: optuna.Study, number: int, found: Attributes) -> None:
    """Keep later measurements of a finished trial, which replace its recorded values."""
    study.set_user_attr(f"{LATER}{number}", found)


def read_later(study: optuna.Study) -> dict[int, Attributes]:
    """Return the later measurements of a study, by trial."""
    return {
        int(key.removeprefix(LATER)): found
        for key, found in study.user_attrs.items()
        if key.startswith(LATER)
    }


def with_later(known: Attributes, later: Attributes) -> Attributes:
    """Return a trial's record, or its summary, updated by later measurements."""
    objectives = {name: later[name] for name in OBJECTIVES.names() if name in later}
    return known | later | {"objectives": (known.get("objectives") or {}) | objectives}


def _read(store: Store, trial: FrozenTrial, name: str) -> bytes:
    ids: dict[str, str] = trial.system_attrs.get(FILES, {})
    problem: Exception | str = "the trial has none"
    if name in ids:
        try:
            with store.artifacts.open_reader(ids[name]) as reader:
                return reader.read()
        except InputError:  # of the whole location
            raise
        except Exception as error:  # drivers have errors of their own
            problem = error
    raise StorageError(
        f"{name} of trial {trial.number} must lie in {store.artifacts.location}, but cannot be "
        f"read there ({problem}); mend that. Files that have moved are found beside the .db file, "
        "or once the study has been run with the key `artifacts` set to where they are"
    )
