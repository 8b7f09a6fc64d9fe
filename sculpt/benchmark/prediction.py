"""The last measurement of a study, kept beside its storage for `sculpt check`."""

import json
from pathlib import Path
from typing import Any

from sculpt.config import Study
from sculpt.errors import StorageError
from sculpt.files import replacing
from sculpt.search.store import storage_file


def bench_path(config: Study) -> Path:
    """Return where a study's last measurement is kept."""
    return storage_file(config).with_name(f"{config.study}-bench.json")


def keep_bench(config: Study, document: dict[str, Any]) -> None:
    """Write a measurement in one step, so that nobody reads half of one.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = bench_path(config)
    try:
        with replacing(path) as part:
            part.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"the measurement must be written to {path}, but cannot be ({error.strerror}); "
            "give another --storage"
        ) from error


def predict(config: Study, trials: int) -> dict[str, Any] | None:
    """Return what running a study will take by its last measurement, None without a fitting one.

    Args:
        config:
            The study; measurements of one with other settings do not count.
        trials:
            In all, the base included; it may have changed since the measurement.

    Returns:
        `{"seconds", "measured_on"}`, the latter the device as in a trial's record.
    """
    try:
        document = json.loads(bench_path(config).read_text(encoding="utf-8"))
        if document["fingerprint"] != config.fingerprint():
            return None
        per_trial = document["predicted"]["seconds_per_trial"]
        seconds = per_trial["base"] + (trials - 1) * per_trial["candidate"]
        return {"seconds": seconds, "measured_on": document["device"]}
    except (OSError, ValueError, KeyError, TypeError):
        # Only an estimate: what cannot be read is as good as none.
        return None
