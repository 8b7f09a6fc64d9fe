"""Trials as a table: the columns, their units and meanings, in the order of the table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sculpt.documents import Document
from sculpt.quantities import CONNECTION, ISOMETRY, MILESTONES, TOTALS, Quantity, of_metric
from sculpt.registry import QUANTITIES
from sculpt.units import ERROR, Metric

if TYPE_CHECKING:  # pandas takes half a second to import, and counting trials needs no table
    import pandas as pd

_FIRST = (
    Quantity("study", "", "name of the study"),
    Quantity("trial", "", "number of a candidate, or base"),
    Quantity(
        "state",
        "",
        "complete, stopped, failed, interrupted (run again as another trial), infeasible, running "
        "or queued",
    ),
    Quantity("role", "", "base or candidate"),
)
_LAST = (
    Quantity(
        "rungs",
        "fraction by epoch",
        "validation error of the first seed at each look of early stopping",
    ),
    Quantity(
        "judged_proxy", "", "what early stopping judged it by before training; lower is better"
    ),
    Quantity(
        "judged_costs", "", "what early stopping judged it by beside the error; lower is better"
    ),
    Quantity(
        "stopped_at", "epochs", "of the first seed, after which it was stopped; 0 before training"
    ),
    Quantity("error", "", "why it was stopped, failed or is infeasible"),
)


def as_table(rows: Iterable[Document]) -> pd.DataFrame:
    """Return rows of `Results` as a table; a parameter's column is named `params.NAME`."""
    import pandas as pd

    table = pd.DataFrame(
        {f"params.{key}": value for key, value in row["params"].items()} | row for row in rows
    )
    return table[in_order(str(name) for name in table if name != "params")]


def described(names: Iterable[str], metric: Metric = ERROR) -> list[tuple[str, str, str]]:
    """Return name, unit and meaning of columns; empty words where nobody documents them.

    The columns of errors are of the study's metric.
    """
    known, found = _known(), []
    for name in names:
        quantity = of_metric(known.get(name, Quantity(name, "", "")), metric)
        meaning = quantity.meaning
        if name.startswith("params."):
            meaning = f"sampled value of {name.removeprefix('params.')}"
        found.append((name, quantity.column_unit or quantity.unit, meaning))
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """Return columns in the order of this file; those it does not know stand before the error."""
    place = {name: position for position, name in enumerate(_known())}
    after_role, last = place["role"] + 0.5, place["error"] - 0.5
    return sorted(
        names,
        key=lambda name: place.get(name, after_role if name.startswith("params.") else last),
    )


def _known() -> dict[str, Quantity]:
    signals = (
        Quantity(f"{step}_{quantity.name}", quantity.unit, f"{quantity.meaning}, {when}")
        for step, when in MILESTONES.items()
        for quantity in (*reversed(ISOMETRY), *CONNECTION)
    )
    return {q.name: q for q in (*_FIRST, *QUANTITIES.entries(), *signals, *TOTALS, *_LAST)}
