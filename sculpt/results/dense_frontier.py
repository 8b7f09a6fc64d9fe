"""The dense frontier: how large a dense network must be to reach a sparse one's error.

The dense networks of a study that no other one beats in cost and mean error, and between two
neighbours the errors of each seed, interpolated in the logarithm of the cost. A sparse network is
worth the cost at which that line has its error. The interval holds every cost at which the line
cannot be told from it: Student's t on the differences of each seed, inverted (as by Fieller 1954).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from sculpt.documents import Document
from sculpt.dominance import non_dominated
from sculpt.results.records import Results
from sculpt.results.rows import by_error, val_error, whole
from sculpt.results.statistics import student_t
from sculpt.units import Error

Cost = Literal["kept_parameters", "kept_macs", "latency"]

APART = 1.1
"""Least ratio of the largest and the smallest dense network of a frontier."""

STEP = 1.002
"""Ratio of neighbouring costs that are looked at between the networks."""

Array = NDArray[np.float64]


class DenseNetwork(TypedDict):
    """A dense network, the base or an opponent."""

    trial: str
    kept_parameters: int
    kept_macs: float
    latency: float | None
    val_error: Error
    on_frontier: bool
    """No other one beats it in parameters and mean error."""


class Worth(TypedDict):
    """A candidate, and what a dense network of its error would cost."""

    trial: int
    cost: Cost
    own: float
    """The candidate's own cost."""
    dense: float
    """Cost of a dense network of the same error."""
    beyond: Literal["above", "below"] | None
    """That cost is beyond the networks that were trained, and `dense` is the last of theirs."""
    low: float | None
    """End of its 95 % interval; None where that goes on beyond those that were trained."""
    high: float | None


class DenseFrontier(TypedDict):
    """The dense frontier of a study (docs/reference/json.md)."""

    networks: list[DenseNetwork]
    """By number of parameters."""
    worth: list[Worth]
    """By cost, and within it in the order of the ranking."""


@dataclass(frozen=True)
class Line:
    """Errors of dense networks over one of their costs, interpolated from the cheapest on."""

    costs: Array
    """In steps of `STEP`, those of the networks among them."""
    errors: Array
    """Costs × seeds."""


def dense_frontier(results: Results) -> DenseFrontier | None:
    """Return the dense frontier and what each finished candidate is worth on it.

    Returns:
        The frontier by parameters, by multiply-accumulates, and by latency where it was measured of
        two dense networks or more; None in a study without dense opponents that differ in size
        by a factor of `APART`, or with a single seed.
    """
    rows = [row for row in results.finished if row["role"] == "base"]
    opponents = [row for row in results.opponent_rows if row["state"] == "complete"]
    rows += [row for row in opponents if row["arm"] == "dense"]
    seeds = len(rows[0]["val_errors"]) if rows else 0
    rows = [row for row in rows if len(row["val_errors"]) == seeds]
    if seeds < 2 or frontier_line(rows, "kept_parameters") is None:
        return None
    candidates = sorted(
        (
            row
            for row in results.finished
            if row["role"] == "candidate" and len(row["val_errors"]) == seeds
        ),
        key=by_error,
    )
    worth: list[Worth] = []
    for cost in get_args(Cost):
        line = frontier_line(rows, cost)
        known = [row for row in candidates if row.get(cost) is not None]
        worth += [_worth(row, cost, line) for row in known if line]
    rows.sort(key=lambda row: (row["kept_parameters"], row["val_error_mean"]))
    best = non_dominated(_pairs(rows, "kept_parameters"))
    networks = [_network(row, bool(is_best)) for row, is_best in zip(rows, best, strict=True)]
    return {"networks": networks, "worth": worth}


def frontier_line(rows: Sequence[Document], cost: Cost) -> Line | None:
    """Return the line through the dense networks that no other one beats.

    None where fewer than two are left, or all of them cost about as much (`APART`).
    """
    known = [row for row in rows if row.get(cost)]
    best = np.flatnonzero(non_dominated(_pairs(known, cost)))
    by_cost = {float(known[place][cost]): known[place]["val_errors"] for place in best}
    costs = np.array(sorted(by_cost))
    if len(costs) < 2 or costs[-1] < APART * costs[0]:
        return None
    logs = np.log(costs)
    count = 2 + math.ceil((logs[-1] - logs[0]) / math.log(STEP))
    # The networks themselves among them: the line bends there.
    looked_at = np.union1d(np.exp(np.linspace(logs[0], logs[-1], count)[1:-1]), costs)
    seeds = np.array([by_cost[value] for value in costs], dtype=float).T
    columns = [np.interp(np.log(looked_at), logs, errors) for errors in seeds]
    return Line(looked_at, np.stack(columns, axis=1))


def _pairs(rows: Sequence[Document], cost: Cost) -> Array:
    pairs = [[row[cost], row["val_error_mean"]] for row in rows]
    return np.array(pairs, dtype=float).reshape(-1, 2)


def _worth(row: Document, cost: Cost, line: Line) -> Worth:
    """Return the cost at which a line of dense networks has a candidate's error."""
    differences = np.asarray(row["val_errors"], dtype=float) - line.errors
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high, _ = student_t(differences)
    alike = np.flatnonzero((low <= 0) & (high >= 0))
    means = differences.mean(axis=1)
    # The line falls, so a candidate's difference from it rises along it.
    beyond: Literal["above", "below"] | None = "below" if means[0] > 0 else None
    beyond = "above" if means[-1] < 0 else beyond
    dense = float(np.interp(0, means, line.costs))
    # What lies beyond has no end on its side; nor has an interval that goes on there.
    first, last = (alike[0], alike[-1]) if len(alike) else (None, None)
    low_end = None if beyond == "below" or first == 0 else dense
    high_end = None if beyond == "above" or last == len(line.costs) - 1 else dense
    if low_end is not None and first is not None:
        low_end = min(dense, float(line.costs[first]))
    if high_end is not None and last is not None:
        high_end = max(dense, float(line.costs[last]))
    return {
        "trial": row["trial"],
        "cost": cost,
        "own": whole(float(row[cost])),
        "dense": dense,
        "beyond": beyond,
        "low": low_end,
        "high": high_end,
    }


def _network(row: Document, on_frontier: bool) -> DenseNetwork:
    return {
        "trial": row["trial"],
        "kept_parameters": row["kept_parameters"],
        "kept_macs": float(row["kept_macs"]),
        "latency": whole(row.get("latency")),
        "val_error": val_error(row),
        "on_frontier": on_frontier,
    }
