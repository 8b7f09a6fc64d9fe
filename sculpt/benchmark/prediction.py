"""The last measurement of a study, kept beside its storage for `sculpt check`."""

import json
from collections.abc import Mapping
from pathlib import Path

from sculpt.config import Study
from sculpt.errors import StorageError
from sculpt.files import check_file, replacing
from sculpt.search.sampling.early_stopping import expected_seeds
from sculpt.search.sampling.feasibility import Prediction
from sculpt.storage.artifacts import storage_file


def bench_path(config: Study) -> Path:
    """Return the path of a study's last measurement."""
    return storage_file(config).with_name(f"{config.study}-bench.json")


def keep_bench(config: Study, document: Mapping[str, object]) -> None:
    """Write a measurement atomically; StorageError if the folder cannot be written."""
    path = bench_path(config)
    try:
        with replacing(path) as part:
            part.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"the measurement must be written to {path}, but cannot be ({error.strerror}); "
            "give another --storage"
        ) from error


def study_seconds(config: Study, trials: int, per_trial: dict[str, float]) -> float:
    """Predict the seconds of a study, with early stopping and confirmation.

    The total of trials includes the base; `per_trial` are the seconds of a whole trial with all its
    seeds, for `base` and `candidate`.
    """
    search = config.search
    base, candidate = (per_trial[role] / search.replicates for role in ("base", "candidate"))
    seeds = expected_seeds(search.early_stopping, config.training, search.replicates)
    seconds = per_trial["base"] + (trials - 1) * seeds * candidate
    for opponent in config.opponents:
        trainings = 2 if opponent.name == "magnitude_after_training" else 1
        seconds += search.replicates * trainings * (base if opponent.name == "dense" else candidate)
    if confirm := search.confirm:
        networks = (confirm.top + confirm.cheap) * (1 + len(confirm.controls))
        seconds += confirm.seeds * (base + networks * candidate)
    return seconds


def predict(config: Study, trials: int) -> Prediction | None:
    """Predict the time of a study from its last measurement; None without one of these settings.

    The total of trials may have changed since the measurement.
    """
    path = bench_path(config)
    try:
        check_file(path)
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["fingerprint"] != config.fingerprint():
            return None
        per_trial = document["predicted"]["seconds_per_trial"]
        seconds = study_seconds(config, trials, per_trial)
        return {"seconds": seconds, "measured_on": document["device"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # Only an estimate: an unreadable measurement is ignored.
        return None
