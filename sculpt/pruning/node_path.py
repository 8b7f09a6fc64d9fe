"""Exact kernel counts of one layer for many effective nodes and many paths.

Pham et al. 2023, *Towards Data-Agnostic Pruning At Initialization: What Makes a Good Sparse
Mask?*, §5. The layer's integer programme has one variable per weight of a kernel; it is
reduced to a few gains per input channel, of which the largest are taken.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
TIE = 1e-9
"""Gains this close, relative to each other, are equal: they differ by rounding."""


def kernel_counts(
    paths: NDArray[np.float64],
    outputs: int,
    positions: int,
    budget: int,
    *,
    alpha: float,
    beta: float,
) -> Counts:
    """Find kernel counts M (outputs, inputs) that maximise a layer's node-path objective.

        α · nodes/(inputs + outputs) + (1 − α) · Σ_ij p_j M_ij / most + β · kernels/budget

    over integers 0 ≤ M_ij ≤ positions with ΣM = budget, where p_j ≥ 0 is the number of paths to
    input j (only ratios matter) and `most` the largest Σ p_j M_ij within the budget, so that each
    term is at most 1. Inputs without paths are dead. Nodes are the other inputs with
    Σ_i M_ij ≥ 1 and the outputs that keep a weight from one of these; kernels are the M_ij ≥ 1 of
    these. All outputs are taken to be equally important.

    Args:
        paths: p, float (inputs,), finite and not negative.
        outputs: Number of output channels.
        positions: Weights in a kernel, kh · kw; 1 for linear layers.
        budget: From 0 to inputs · outputs · positions.
        alpha: α, from 0 to 1.
        beta: β ≥ 0, the authors' regulariser, which spreads the budget over many kernels.

    Returns:
        int (outputs, inputs). Among several optima: inputs of equal gain share as evenly as
        possible, earlier ones first, and so do all outputs.
    """
    # Let t_j = Σ_i M_ij be the weights of input j. Claim: it is enough to optimise over t.
    #
    # 1. Bounds. For given t, the paths are Σ p_j t_j whatever M is; input j counts as a node if
    #    t_j ≥ 1; it has at most min(t_j, outputs) non-zero kernels; and at most
    #    min(outputs, Σ t_j over live j) outputs are nodes.
    # 2. They are met all at once by `_dealt`, which deals the weights of the inputs, one input
    #    after the other, live ones first, to outputs 0, 1, …, outputs − 1, 0, 1, … An input's
    #    weights lie on consecutive outputs, so they differ by at most one: none exceeds
    #    ⌈t_j / outputs⌉ ≤ positions, and min(t_j, outputs) are non-zero. Consecutive outputs
    #    also means that all are met before one is met twice.
    # 3. So what is left to maximise is Σ_j f_j(t_j) + c · min(outputs, Σ_live t_j). Each live
    #    f_j is concave: a first weight gains node + path + kernel, one of the next outputs − 1
    #    path + kernel, all further ones path. For a dead input f_j = 0.
    # 4. So each unit of an input has a gain of its own, and units of one input are worth taking
    #    in order: with one constraint, on their number, the units of the largest gains are the
    #    optimum. As all live gains are ≥ 0 and the last term only grows with live weights, live
    #    inputs are filled before dead ones, which makes that last term as large as it can be.
    inputs, capacity = len(paths), outputs * positions
    order = np.argsort(-paths, kind="stable")
    weights = np.zeros(inputs, dtype=np.int64)  # t, in this order
    relative = paths[order] / max(paths.max(initial=0), np.finfo(np.float64).tiny)
    live = int(np.count_nonzero(relative))

    for_live = min(budget, live * capacity)
    if for_live:
        full, part = divmod(for_live, capacity)
        most = relative[:full].sum() * capacity + (part * relative[full] if part else 0)
        path = (1 - alpha) * relative[:live] / most
        kernel, node = beta / budget, alpha / (inputs + outputs)
        # One row per kind of weight: an input's first, the next outputs − 1, and the rest.
        gains = np.stack([path + kernel + node, path + kernel, path])
        sizes = np.array([1, outputs - 1, capacity - outputs])
        weights[:live] = _taken(gains, sizes, for_live)
    weights[live:] = _spread(np.full(inputs - live, capacity), budget - for_live)

    counts = np.empty((outputs, inputs), dtype=np.int64)
    counts[:, order] = _dealt(weights, outputs)
    return counts


def _taken(gains: NDArray[np.float64], sizes: Counts, budget: int) -> Counts:
    """Take the units of the largest gains; count them by input.

    Gains are (kinds, inputs), not increasing along kinds; each input has `sizes` units, (kinds,).
    """
    inputs = gains.shape[1]
    flat = gains.flatten()
    ranking = np.argsort(-flat, kind="stable")
    # Units of equal gain are one group, so that no input is preferred to its equal.
    ranked = flat[ranking]
    starts = np.flatnonzero(np.r_[True, ranked[1:] < ranked[:-1] * (1 - TIE)])
    available = np.zeros((len(starts), inputs), dtype=np.int64)
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(ranking)]))
    np.add.at(available, (group, ranking % inputs), sizes[ranking // inputs])
    units = np.diff(np.minimum(available.sum(1).cumsum(), budget), prepend=0)
    return sum(
        (_spread(available[g], int(units[g])) for g in np.flatnonzero(units)),
        start=np.zeros(inputs, dtype=np.int64),
    )


def _spread(capacities: Counts, units: int) -> Counts:
    """Share units as evenly as the capacities allow, the odd ones going to the first."""
    if units == 0:
        return np.zeros_like(capacities)
    # The highest level to which all can be filled: capacities up to it are exhausted.
    ascending = np.sort(capacities)
    below = np.concatenate([[0], np.cumsum(ascending)])
    others = len(ascending) - np.arange(len(ascending))
    filled = below[:-1] + others * ascending  # units needed to fill all to each capacity
    first = int(np.searchsorted(filled, units, side="right"))
    if first == len(ascending):
        return capacities.copy()
    level = (units - below[first]) // others[first]
    shares = np.minimum(capacities, level)
    odd = units - int(shares.sum())
    shares[np.flatnonzero(capacities > level)[:odd]] += 1
    return shares


def _dealt(weights: Counts, outputs: int) -> Any:
    """Deal the weights of each input to consecutive outputs, going round; (outputs, inputs)."""
    starts = np.cumsum(weights) - weights
    distance = (np.arange(outputs)[:, None] - starts) % outputs
    return weights // outputs + (distance < weights % outputs)
