"""What is kept of a finished trial: its whole record and its networks, in files of their own.

The storage holds only the few numbers that queries need; see `summary`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import get_all_artifact_meta, upload_artifact
from optuna.trial import FrozenTrial

from sculpt.errors import InputError, StorageError
from sculpt.quantities import SIGNALS, stored
from sculpt.record import TrialRecord
from sculpt.search.artifacts.places import FILES, RECORD_FILE
from sculpt.search.storage.stored_trials import write_attributes
from sculpt.search.store import Store
from sculpt.typed_json import from_json, to_json


def keep(store: Store, trial: optuna.Trial, record: TrialRecord, files: list[Path]) -> None:
    """Keep a finished trial's record, the files that belong to it, and its summary."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, RECORD_FILE)
        text = json.dumps(to_json(record), indent=1, allow_nan=False)
        written.write_text(text, encoding="utf-8")
        ids = {
            file.name: upload_artifact(
                artifact_store=store.artifacts,
                file_path=str(file),
                study_or_trial=trial,
                storage=store.storage,
            )
            for file in [written, *files]
        }
    # A private name: Optuna has no public way to the id that its storage asks for.
    store.storage.set_trial_system_attr(trial._trial_id, FILES, ids)
    write_attributes(trial, summary(record))


def summary(record: TrialRecord) -> dict[str, Any]:
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


def _read(store: Store, trial: FrozenTrial, name: str) -> bytes:
    ids: dict[str, str] | None = store.storage.get_trial_system_attrs(trial._trial_id).get(FILES)
    if ids is None:  # kept by an older version
        metas = get_all_artifact_meta(trial, storage=store.storage)
        ids = {meta.filename: meta.artifact_id for meta in metas}
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
