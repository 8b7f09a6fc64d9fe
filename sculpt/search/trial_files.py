"""Files of finished trials: the whole record and the networks, each in a file of its own.

The storage holds only the few numbers that queries need; see `summary`. A finished trial of
Optuna's cannot be changed: what is measured of it later is an attribute of its study.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FrozenTrial

from sculpt.errors import InputError, StorageError
from sculpt.quantities import SIGNALS, stored
from sculpt.record import TrialRecord
from sculpt.registry import OBJECTIVES
from sculpt.search.artifacts.location import FILES, RECORD_FILE
from sculpt.search.storage.trials import ClaimedTrial
from sculpt.search.store import Store
from sculpt.typed_json import from_json, to_json

LATER = "afterwards/"
"""Beginning of an attribute of a study, which ends in the number of a trial: what was measured of
it after it had ended."""


def keep(store: Store, claimed: ClaimedTrial, record: TrialRecord, files: list[Path]) -> None:
    """Keep a finished trial's record, the files that belong to it, and its summary."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, RECORD_FILE)
        text = json.dumps(to_json(record), indent=1, allow_nan=False)
        written.write_text(text, encoding="utf-8")
        ids = {
            file.name: upload_artifact(
                artifact_store=store.artifacts,
                file_path=str(file),
                study_or_trial=claimed.trial,
                storage=store.storage,
            )
            for file in [written, *files]
        }
    claimed.write_system(FILES, ids)
    claimed.write(summary(record))


Attributes = dict[str, Any]
"""Quantities of a trial by name (`sculpt.quantities`), as they are kept beside its record."""


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
    """Read the record of a finished trial.

    Raises:
        StorageError: it is not where it was written, or damaged.
    """
    mend = f"; restore {store.artifacts.location} from a copy"
    written = _read(store, trial, RECORD_FILE)
    return from_json(TrialRecord, written, f"the record of trial {trial.number}", mend)


def network_file(seed: int) -> str:
    """Return the name of the file of a seed's network among a trial's artifacts."""
    return f"network-seed-{seed}.safetensors"


def read_network(store: Store, trial: FrozenTrial, seed: int, path: Path) -> None:
    """Copy the network of one seed of a finished trial to a file.

    Raises:
        StorageError: it is not where it was written.
    """
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


def keep_later(study: optuna.Study, number: int, found: Attributes) -> None:
    """Keep values that were measured of a finished trial, in the place of those that it has."""
    study.set_user_attr(f"{LATER}{number}", found)


def read_later(study: optuna.Study) -> dict[int, Attributes]:
    """Return what `keep_later` kept of each trial of a study."""
    return {
        int(key.removeprefix(LATER)): found
        for key, found in study.user_attrs.items()
        if key.startswith(LATER)
    }


def with_later(known: Attributes, later: Attributes) -> Attributes:
    """Return a trial's record, or its summary, with what was measured later in its place."""
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
