"""Records of trials that are made up, whole, as JSON."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

SIZES: dict[str, Any] = {
    "dense_parameters": 4874,
    "kept_parameters": 4874,
    "unspent": 0,
    "dense_macs": 1000,
    "kept_macs": 1000.0,
    "dense_memory": None,
    "score_kept": None,
    "score_share": None,
    "latency": None,
}


def whole_epoch(number: int, val_error: float, **changes: Any) -> dict[str, Any]:
    """Return an evaluated epoch."""
    return {
        "epoch": number,
        "learning_rate": 0.1,
        "train_loss": 1.0,
        "train_error": 0.1,
        "val_loss": 1.0,
        "val_error": val_error,
        "test_error": None,
        "seconds": 1.0,
        "images_per_second": 100.0,
    } | changes


def whole_layer(name: str, **changes: Any) -> dict[str, Any]:
    """Return the row of a weight."""
    return {
        "name": name,
        "shape": [10, 10],
        "kept": 100,
        "density": 1.0,
        "kept_macs": 100,
        "effective_channels": 10,
        "orthogonality_before": 2.0,
        "orthogonality_after": 1.0,
        "orthogonality_bound": 0.5,
        "repair_steps": 0,
        "repair_seconds": 0.0,
    } | changes


def whole_run(val_error: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the record of a seed."""
    run: dict[str, Any] = SIZES | {
        "seed": seed,
        "kept_macs": 1000,
        "collapsed_layers": [],
        "signal": {},
        "layers": [],
        "seconds": {"train": 0.5},
        "training": {"precision": "float32", "resumed_at": []},
        "diverged": False,
        "val_error": val_error,
        "val_loss": 1.0,
        "test_error": None,
        "train_loss": 1.0,
        "history": [whole_epoch(1, val_error)],
        "compaction": None,
    }
    return run | changes


def whole_record(val_errors: Sequence[float] = (0.1,), **changes: Any) -> dict[str, Any]:
    """Return the record of a finished trial with these validation errors."""
    errors = [float(error) for error in val_errors]
    seeds = list(range(len(errors)))
    record: dict[str, Any] = SIZES | {
        "trial": 0,
        "objectives": {"val_error": mean(errors), "kept_macs": changes.get("kept_macs", 1000.0)},
        "format": 1,
        "study": "tiny",
        "role": "candidate",
        "params": {},
        "counting": "paper",
        "budget": 4874,
        "sparsity": 0.0,
        "latency_by": None,
        "val_error": {
            "mean": mean(errors),
            "std": stdev(errors) if len(errors) > 1 else None,
            "n": len(errors),
        },
        "val_errors": errors,
        "test_errors": [None] * len(errors),
        "diverged": 0,
        "epochs": len(errors),
        "seconds": 1.0,
        "training_seconds": 0.5,
        "seeds": seeds,
        "layers": [],
        "signal": {},
        "compaction": None,
        "runs": [whole_run(error, seed) for seed, error in zip(seeds, errors, strict=True)],
        "config": {},
        "input": {
            "channels": 1,
            "height": 8,
            "width": 8,
            "classes": 10,
            "mean": [0.0],
            "std": [1.0],
            "class_names": None,
        },
        "data_fingerprint": "feed",
        "device": {"type": "cpu", "name": "x86_64", "threads": 1},
        "versions": {"python": "3.11", "torch": "2.15"},
    }
    return record | changes
