"""Rank correlations of early proxies of a candidate with its error."""

import math
from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

from sculpt.documents import Document
from sculpt.quantities import proxies as known_proxies
from sculpt.results.records import Results


class ProxyRow(TypedDict):
    """A proxy's correlation (docs/reference/json.md)."""

    proxy: str
    rho: float | None
    p: float | None
    n: int


COSTS = ("kept_macs", "dense_parameters")
"""Correlated with the error, too."""

Column = NDArray[np.float64]
"""A number of each candidate, (candidates,); NaN where it has none. (Without pandas, whose import
takes a quarter of the time of `sculpt rank`.)"""


def proxies(results: Results) -> list[ProxyRow]:
    """Return each proxy's Spearman correlation with the final validation error.

    Over all finished candidates of the study, whatever their budgets: over several budgets a
    proxy may owe its correlation to the size alone.

    Returns:
        JSON rows `proxy`, `rho` (negative: the higher the proxy, the lower the error), `p`
        (two-sided, of this proxy alone) and `n`, the strongest first. `rho` and `p` are None where
        fewer than 3 candidates have the proxy, or all have the same. What no candidate has is
        left out.
    """
    candidates = [row for row in results.finished if row["role"] == "candidate"]
    errors = np.array([row["val_error_mean"] for row in candidates], dtype=float)
    rows: list[ProxyRow] = []
    for name, values in measures(candidates).items():
        known = ~np.isnan(values) & ~np.isnan(errors)
        if known.any():
            rho, p = spearman(values[known], errors[known])
            rows.append({"proxy": name, "rho": rho, "p": p, "n": int(known.sum())})
    return sorted(rows, key=lambda row: -abs(row["rho"] or 0.0))


def spearman(one: ArrayLike, other: ArrayLike) -> tuple[float | None, float | None]:
    """Return the rank correlation of two columns, ties averaged, and its two-sided p.

    p is by Student's t, as `scipy.stats.spearmanr` has it (which takes half a second to import),
    but at least the share of orders that agree or disagree entirely: 2 / n!.
    """
    ranks = _ranks(one), _ranks(other)
    count = len(ranks[0])
    if count < 3 or any(np.ptp(column) == 0 for column in ranks):
        return None, None
    rho = float(np.clip(np.corrcoef(*ranks)[0, 1], -1, 1))
    fewest = 2 / math.factorial(min(count, 20))
    if abs(rho) > 1 - 1e-12:
        return float(np.sign(rho)), fewest
    t = rho * math.sqrt((count - 2) / (1 - rho**2))
    return rho, max(fewest, float(2 * stdtr(count - 2, -abs(t))))


def _ranks(values: ArrayLike) -> Column:
    """Return ranks from 1, averaged over ties."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]


def measures(candidates: Sequence[Document]) -> dict[str, Column]:
    """Return every proxy and cost as a column of numbers."""
    quantities = known_proxies()
    measures = {name: _column(candidates, name) for name in (*quantities, *COSTS)}
    # Without a path there is no logarithm of their number, but fewest paths there are.
    unconnected = np.isnan(measures["log10_paths"]) & ~np.isnan(measures["effective_nodes"])
    measures["log10_paths"][unconnected] = -math.inf
    for name, quantity in quantities.items():
        if scale := quantity.scale:
            measures[name] = _numbers(x if math.isnan(x) else scale(x) for x in measures[name])
    rungs = [row.get("rungs") or {} for row in candidates]
    for epoch in sorted({int(epoch) for row in rungs for epoch in row}):
        # The keys were numbers before they went through JSON.
        measures[f"val_error_after_{epoch}"] = _numbers(
            row.get(str(epoch), row.get(epoch)) for row in rungs
        )
    return measures


def _column(candidates: Sequence[Document], name: str) -> Column:
    """Return a quantity; of how signals travel, after the last step before training."""
    steps = (f"repaired_{name}", f"pruned_{name}", name)
    known = ([row[s] for s in steps if row.get(s) is not None] for row in candidates)
    return _numbers(values[0] if values else None for values in known)


def _numbers(values: Iterable[float | None]) -> Column:
    return np.array(list(values), dtype=float)
