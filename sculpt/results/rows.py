"""What is read off the rows of `Results.trials`."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import pandas as pd

from sculpt.config import Sparsity, Study


def budgets_of(config: Study, table: pd.DataFrame) -> list[int]:
    """Return the budgets of the candidates in a table; none where each has a share of its own."""
    if isinstance(config.budget, Sparsity) or not len(table):
        return []
    candidates = table[table["role"] == "candidate"]
    rows = candidates if len(candidates) else table
    return sorted({int(budget) for budget in rows["budget"]})


def parameters_of(row: pd.Series) -> dict[str, Any]:
    """Return the sampled parameters of a row of `Results.trials`."""
    return {
        str(key).removeprefix("params."): _plain(value)
        for key, value in row.items()
        if str(key).startswith("params.") and not _missing(value)
    }


def number_or_none(value: Any) -> float | int | None:
    """Return a number of a row of `Results.trials` as JSON has it; None where it is missing."""
    return None if _missing(value) else _plain(value)


def spread(errors: Sequence[float]) -> dict[str, Any] | None:
    """Return mean, standard deviation (None of one) and number of errors; None without any."""
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
