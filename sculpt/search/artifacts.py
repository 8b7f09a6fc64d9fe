"""What is kept of a finished trial: its whole record and its networks, in files of their own.

The storage holds only the few numbers that queries need; see `summary`.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import download_artifact, get_all_artifact_meta, upload_artifact
from optuna.trial import FrozenTrial

from sculpt.errors import StorageError
from sculpt.search.store import Store

RECORD_FILE = "record.json"

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
    store.artifact_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, RECORD_FILE)
        written.write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
        for file in [written, *files]:
            upload_artifact(
                artifact_store=store.artifacts,
                file_path=str(file),
                study_or_trial=trial,
                storage=store.storage,
            )
    for key, value in summary(record).items():
        trial.set_user_attr(key, value)


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
    metas = get_all_artifact_meta(trial, storage=store.storage)
    ids = [meta.artifact_id for meta in metas if meta.filename == RECORD_FILE]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, RECORD_FILE)
        try:
            download_artifact(
                artifact_store=store.artifacts, file_path=str(path), artifact_id=ids[-1]
            )
            return json.loads(path.read_text(encoding="utf-8"))
        except (IndexError, OSError, ValueError) as error:
            raise StorageError(
                f"the record of trial {trial.number} must lie in {store.artifact_folder}, but "
                "cannot be read there; move that folder together with the .db file"
            ) from error


def network_file(seed: int) -> str:
    """Return the name of the file of a seed's network among a trial's artifacts."""
    return f"network-seed-{seed}.safetensors"


def read_network(store: Store, trial: FrozenTrial, seed: int, path: Path) -> None:
    """Copy the network of one seed of a finished trial to a file.

    Raises:
        StorageError: it is not where it was written.
    """
    metas = get_all_artifact_meta(trial, storage=store.storage)
    ids = [meta.artifact_id for meta in metas if meta.filename == network_file(seed)]
    try:
        download_artifact(artifact_store=store.artifacts, file_path=str(path), artifact_id=ids[-1])
    except (IndexError, OSError) as error:
        raise StorageError(
            f"the network of trial {trial.number}, seed {seed}, must lie in "
            f"{store.artifact_folder}, but cannot be read there; move that folder together with "
            "the .db file"
        ) from error
