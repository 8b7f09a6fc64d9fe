"""Columns of a study's table: units and meanings, in the order of the table."""

from collections.abc import Iterable
from dataclasses import dataclass

from sculpt.quantities import CONNECTION, ISOMETRY, MILESTONES, TOTALS, Quantity
from sculpt.registry import QUANTITIES


@dataclass(frozen=True)
class Column:
    """A column of `Results.trials`."""

    name: str
    unit: str
    meaning: str


_FIRST = (
    Column("study", "", "name of the study"),
    Column("trial", "", "number of a candidate, or base"),
    Column(
        "state",
        "",
        "complete, stopped, failed, interrupted (run again as another trial), infeasible, running "
        "or queued",
    ),
    Column("role", "", "base or candidate"),
)
_LAST = (
    Column(
        "rungs",
        "fraction by epoch",
        "validation error of the first seed at each look of early stopping",
    ),
    Column("judged_proxy", "", "what early stopping judged it by before training; lower is better"),
    Column(
        "judged_costs", "", "what early stopping judged it by beside the error; lower is better"
    ),
    Column(
        "stopped_at", "epochs", "of the first seed, after which it was stopped; 0 before training"
    ),
    Column("error", "", "why it was stopped, failed or is infeasible"),
)


def describe_column(name: str) -> Column:
    """Return unit and meaning of a column of `Results.trials`; empty if nobody documents it."""
    known = _known()
    if name.startswith("params."):
        return Column(name, "", f"sampled value of {name.removeprefix('params.')}")
    return known.get(name, Column(name, "", ""))


def in_order(names: Iterable[str]) -> list[str]:
    """Return columns in the order of this file; those it does not know stand before the error."""
    names = list(names)
    known = list(_known())
    place = {name: position for position, name in enumerate(known)}
    after_role, last = place["role"] + 0.5, place["error"] - 0.5
    return sorted(
        names,
        key=lambda name: place.get(name, after_role if name.startswith("params.") else last),
    )


def _known() -> dict[str, Column]:
    """Return every documented column by name, in the table's order."""
    signals = (
        Column(f"{step}_{quantity.name}", quantity.unit, f"{quantity.meaning}, {when}")
        for step, when in MILESTONES.items()
        for quantity in (*reversed(ISOMETRY), *CONNECTION)
    )
    measured = map(_column, QUANTITIES.entries())
    return {c.name: c for c in (*_FIRST, *measured, *signals, *map(_column, TOTALS), *_LAST)}


def _column(quantity: Quantity) -> Column:
    return Column(quantity.name, quantity.column_unit or quantity.unit, quantity.meaning)
