"""Values read from rows of `Results`."""

import math
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from sculpt.config import Sparsity, Study
from sculpt.documents import Document
from sculpt.units import Error

DIGITS = 6
"""Significant digits of what is drawn, or written beside published figures."""


def budgets_of(config: Study, finished: Sequence[Document]) -> list[int]:
    """Return the budgets of finished candidates; none where each has a share of its own."""
    if isinstance(config.budget, Sparsity) or config.counts_macs:
        return []
    candidates = [row for row in finished if row["role"] == "candidate"]
    return sorted({int(row["budget"]) for row in candidates or finished})


def by_error(row: Document) -> tuple[float, float]:
    """Return the key of an order: best first, at equal mean error the one that keeps fewer MACs."""
    return row["val_error_mean"], row["kept_macs"]


def val_error(row: Document) -> Error:
    """Return the validation errors of a finished trial."""
    mean, std, n = (row[f"val_error_{part}"] for part in ("mean", "std", "n"))
    return {"mean": mean, "std": whole(std), "n": n}


def rounded(value: Any) -> float | None:
    """Return a finite number, rounded to what a figure can show; None for anything else."""
    if value is None or isinstance(value, bool | str | list | dict):
        return None
    value = float(value)
    return significant(value) if math.isfinite(value) else None


def significant(value: float) -> float:
    """Return a number of few digits."""
    return float(f"{value:.{DIGITS}g}")


def whole(value: Any) -> Any:
    """Return a whole number as an integer, and anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def of_every_seed(errors: Any) -> list[float]:
    """Return one error per seed; none at all if any of them is not known."""
    values = list(errors) if isinstance(errors, Iterable) else []
    return [] if None in values else values


def spread(errors: Sequence[float]) -> Error | None:
    """Return mean, standard deviation and number of errors; None without any."""
    if not errors:
        return None
    std = stdev(errors) if len(errors) > 1 else None
    return {"mean": mean(errors), "std": std, "n": len(errors)}
