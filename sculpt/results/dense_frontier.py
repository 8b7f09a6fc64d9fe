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
from sculpt.results.rows import whole
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
    """Errors of dense networks over one of their costs, the cheapest first."""

    costs: Array
    errors: Array
    """Networks × seeds."""

    def at(self, costs: Array) -> Array:
        """Interpolate the errors of each seed at costs within the line: costs × seeds."""
        logs = np.log(self.costs)
        columns = [np.interp(np.log(costs), logs, seed) for seed in self.errors.T]
        return np.stack(columns, axis=1)


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
        key=lambda row: (row["val_error_mean"], row["kept_macs"]),
    )
    worth: list[Worth] = []
    for cost in get_args(Cost):
        line = frontier_line(rows, cost)
        known = [row for row in candidates if row.get(cost) is not None]
        worth += [_worth(row, cost, line) for row in known if line]
    rows.sort(key=lambda row: (row["kept_parameters"], row["val_error_mean"]))
    return {"networks": [_network(row) for row in rows], "worth": worth}


def frontier_line(rows: Sequence[Document], cost: Cost) -> Line | None:
    """Return the line through the dense networks that no other one beats.

    None where fewer than two are left, or all of them cost about as much (`APART`).
    """
    known = [row for row in rows if row.get(cost)]
    pairs = np.array([[row[cost], row["val_error_mean"]] for row in known], dtype=float)
    if len(known) < 2:
        return None
    best = [known[place] for place in np.flatnonzero(non_dominated(pairs))]
    by_cost = {float(row[cost]): row["val_errors"] for row in best}  # equal ones once
    costs = np.array(sorted(by_cost))
    if costs[-1] < APART * costs[0]:
        return None
    return Line(costs, np.array([by_cost[value] for value in costs], dtype=float))


def _worth(row: Document, cost: Cost, line: Line) -> Worth:
    """Return the cost at which a line of dense networks has a candidate's error."""
    ends = math.log(line.costs[0]), math.log(line.costs[-1])
    count = 2 + math.ceil((ends[1] - ends[0]) / math.log(STEP))
    # The networks themselves among them: the line bends there.
    looked_at = np.union1d(np.exp(np.linspace(*ends, count)[1:-1]), line.costs)
    differences = np.asarray(row["val_errors"], dtype=float) - line.at(looked_at)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high, _ = student_t(differences)
    alike = np.flatnonzero((low <= 0) & (high >= 0))
    means = differences.mean(axis=1)
    # The line falls, so a candidate's difference from it rises along it.
    beyond: Literal["above", "below"] | None = "below" if means[0] > 0 else None
    beyond = "above" if means[-1] < 0 else beyond
    dense = float(np.interp(0, means, looked_at))
    # Where it is told from all of them, even from the last one on its side.
    low_end = None if beyond == "below" else dense
    high_end = None if beyond == "above" else dense
    if len(alike):
        first, last = alike[0], alike[-1]
        low_end = float(looked_at[first]) if first else None
        high_end = float(looked_at[last]) if last < len(looked_at) - 1 else None
    return {
        "trial": row["trial"],
        "cost": cost,
        "own": whole(float(row[cost])),
        "dense": dense,
        "beyond": beyond,
        "low": low_end,
        "high": high_end,
    }


def _network(row: Document) -> DenseNetwork:
    mean, std, n = (row[f"val_error_{part}"] for part in ("mean", "std", "n"))
    return {
        "trial": row["trial"],
        "kept_parameters": row["kept_parameters"],
        "kept_macs": float(row["kept_macs"]),
        "latency": whole(row.get("latency")),
        "val_error": {"mean": mean, "std": whole(std), "n": n},
    }
