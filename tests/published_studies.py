"""Studies with published test errors, whose seeds' evaluations are chosen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rigged import add_trial, attributes, keep_record, rigged_store
from whole_records import whole_epoch, whole_record, whole_run

from sculpt.storage.store import Store

SOURCE = "Nobody 2020, Table 6"
ROWS = [
    {"params": {"blocks": 1, "widening": 4}, "test_error": 0.0612},  # in an order of its own
    {"params": "base", "test_error": 0.0735},
    {"params": {"widening": 2, "blocks": 1}, "test_error": 0.0701},
    {"params": {"widening": 3, "blocks": 1}, "test_error": 0.0799},
]

BASE = ([0.12, 0.13, 0.14, 0.12, 0.13], [0.10, 0.11, 0.12, 0.10, 0.11])
"""Validation errors, and lowest test errors, of five seeds."""
BETTER = ([0.09, 0.10, 0.11, 0.09, 0.11], [0.070, 0.080, 0.089, 0.071, 0.082])
LIKE = ([0.12, 0.12, 0.15, 0.13, 0.12], [0.09, 0.12, 0.11, 0.10, 0.105])
WORSE = ([0.19, 0.21, 0.22, 0.20, 0.20], [0.17, 0.19, 0.20, 0.18, 0.18])

LATER = 0.004
"""By which the test error chosen by validation is above the lowest one, for each seed number."""


def published_store(
    folder: Path, rows: Sequence[Any] = ROWS, protocol: str = "lowest_test", **changes: Any
) -> Store:
    """Start a study of these published rows."""
    published = {"source": SOURCE, "figures": ["test_error"], "rows": list(rows)}
    return rigged_store(folder, published=published, training__protocol=protocol, **changes)


def selected(lowest: Sequence[float]) -> list[float]:
    """Return the test errors that validation chooses, of these lowest ones."""
    return [error + LATER * seed for seed, error in enumerate(lowest)]


def evaluations(val: float, lowest: float, chosen: float) -> list[dict[str, Any]]:
    """Return a history that ends in a validation error above its lowest one, which it has twice.

    The lowest test error is that of the second of the two.
    """
    best = val - 0.05
    found = [(val + 0.3, 0.9), (best, chosen), (best, lowest), (val, chosen + 0.2)]
    return [whole_epoch(n, v, test_error=t) for n, (v, t) in enumerate(found, 1)]


def add_measured(
    store: Store,
    errors: tuple[list[float], list[float]],
    params: dict[str, int] | None = None,
    *,
    with_record: bool = True,
    **changes: Any,
) -> None:
    """Add a finished trial, of the base unless it has parameters, and its record."""
    val, lowest = errors
    reads_test = store.config.training.protocol == "lowest_test"
    tests: Sequence[float | None] = lowest if reads_test else [None] * len(val)
    role = "candidate" if params else "base"
    found = attributes(val, role, test_errors=list(tests), **changes)
    runs = [
        whole_run(
            val[seed],
            seed,
            test_error=lowest[seed],
            history=evaluations(val[seed], lowest[seed], chosen),
        )
        for seed, chosen in enumerate(selected(lowest))
    ]
    record = whole_record(val, params=params or {}, runs=runs)
    system = keep_record(store, record) if with_record else None
    add_trial(store.candidates if params else store.base, found, params, system=system)


def whole_study(folder: Path, **changes: Any) -> Store:
    """Return a study of which one published row is to come, and one is not published."""
    store = published_store(folder, **changes)
    add_measured(store, BASE, kept_macs=2000.0)
    add_measured(store, WORSE, {"widening": 5, "blocks": 1}, kept_macs=3000.0)
    add_measured(store, BETTER, {"widening": 2, "blocks": 1}, kept_macs=4000.0)
    add_measured(store, LIKE, {"widening": 4, "blocks": 1}, kept_macs=1500.0)
    return store
