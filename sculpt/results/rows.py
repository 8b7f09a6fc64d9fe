"""Values read from rows of `Results.trials`."""

import math
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

import pandas as pd

from sculpt.config import Params, Sparsity, Study
from sculpt.units import Error

DIGITS = 6
"""Significant digits of what is drawn, or written beside published figures."""


def budgets_of(config: Study, table: pd.DataFrame) -> list[int]:
    """Return the budgets of the candidates in a table; none where each has a share of its own."""
    if isinstance(config.budget, Sparsity) or not len(table):
        return []
    candidates = table[table["role"] == "candidate"]
    rows = candidates if len(candidates) else table
    return sorted({int(budget) for budget in rows["budget"]})


def parameters_of(row: pd.Series) -> Params:
    """Return the sampled parameters of a row of `Results.trials`."""
    return {
        str(key).removeprefix("params."): _plain(value)
        for key, value in row.items()
        if str(key).startswith("params.") and not _missing(value)
    }


def number_or_none(value: Any) -> float | int | None:
    """Return a number of a row of `Results.trials` as JSON has it; None where it is missing."""
    return None if _missing(value) else _plain(value)


def rounded(value: Any) -> float | None:
    """Return a finite number, rounded to what a figure can show; None for anything else."""
    if value is None or isinstance(value, bool | str | list | dict):
        return None
    value = float(value)
    return significant(value) if math.isfinite(value) else None


def significant(value: float) -> float:
    """Return a number of few digits."""
    return float(f"{value:.{DIGITS}g}")


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


def _plain(value: Any) -> Any:
    """Return a value that JSON knows; whole numbers as integers (a gap made them floats)."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
