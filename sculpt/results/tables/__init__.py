"""JSON documents as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sculpt.config import Params, describe_parameters
from sculpt.table import Column
from sculpt.units import counted

if TYPE_CHECKING:  # SciPy takes a third of a second to import, and sizes need no statistics
    from sculpt.results.statistics import Difference

HOW = {
    "bootstrap": "paired by seed, bootstrap-t",
    "student": "paired by seed, Student's t",
    "welch": "seeds differ, Welch's t",
}


def configuration(params: Params | None) -> str | None:
    """Return a configuration as text, without the last digits of what was sampled."""
    if params is None:
        return None
    values = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in params.items()}
    return describe_parameters(values) or "as the base"


PARAMETERS = Column("parameters", lambda row: configuration(row["params"]))


def how_judged(compared: Sequence[Difference], what: str, family: int) -> str:
    """Return how differences were judged: those that were made, of what, over how many."""
    if not compared:
        return ""
    methods = "; ".join(HOW[method] for method in sorted({one["method"] for one in compared}))
    return (
        f"difference of {what}, with its own 95 % interval ({methods}); verdict: Holm-corrected "
        f"over {counted(family, 'candidate')}, 95 %"
    )
