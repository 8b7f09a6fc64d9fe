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
from sculpt.search.artifacts.places import FILES, RECORD_FILE
from sculpt.search.storage.stored_trials import write_attributes
from sculpt.search.store import Store

SUMMARY = (
    "role",
    "budget",
    "counting",
    "dense_parameters",
    "kept_parameters",
    "unspent",
    "sparsity",
    "dense_macs",
    "kept_macs",
    "dense_memory",
    "score_kept",
    "score_share",
    "val_errors",
    "test_errors",
    "diverged",
    "epochs",
    "seconds",
    "training_seconds",
    "latency",
    "latency_by",
    "objectives",
)


def keep(store: Store, trial: optuna.Trial, record: dict[str, Any], files: list[Path]) -> None:
    """Keep a finished trial's record, the files that belong to it, and its summary."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, RECORD_FILE)
        written.write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
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


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """Return the few numbers of a record that are kept as attributes of its trial."""
    error = {f"val_error_{key}": value for key, value in record["val_error"].items()}
    signal: dict[str, Any] = {}
    for step, quantities in record["signal"].items():
        jacobian = quantities["jacobian"] or {"mean": None}
        numbers = quantities | {"jacobian_mean": jacobian["mean"]}
        del numbers["jacobian"]
        signal |= {f"{step}_{quantity}": value for quantity, value in numbers.items()}
    # Older records lack some.
    return {key: record.get(key) for key in SUMMARY} | error | signal


def read_record(store: Store, trial: FrozenTrial) -> dict[str, Any]:
    """Read the record of a finished trial.

    Raises:
        StorageError: it is not where it was written.
    """
    try:
        return json.loads(_read(store, trial, RECORD_FILE))
    except ValueError as error:
        raise StorageError(
            f"the record of trial {trial.number} must be JSON, but is not ({error}); restore "
            f"{store.artifacts.location} from a copy"
        ) from error


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
