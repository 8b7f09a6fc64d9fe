"""Kernel counts against brute force, and their tie-breaks."""

import itertools
from typing import Any

import numpy as np
import pytest

from sculpt.pruning.node_path import _spread, kernel_counts

WEIGHTINGS = [(0.01, 1.0), (0.01, 0.0), (0.3, 0.0), (0.9, 0.0), (0.5, 0.2), (1.0, 0.0), (0.0, 0.0)]


def most_paths(paths: Any, outputs: int, positions: int, budget: int) -> float:
    """Return the largest Σ p_j M_ij: the best `budget` places."""
    return float(np.sort(np.repeat(paths, outputs * positions))[::-1][:budget].sum())


def value(counts: Any, paths: Any, positions: int, budget: int, alpha: float, beta: float) -> float:
    """Return the objective, written out as the docstring of `kernel_counts` does."""
    outputs, inputs = counts.shape
    alive = counts[:, paths > 0]
    nodes = int((alive.sum(0) >= 1).sum()) + int((alive.sum(1) >= 1).sum())
    most = most_paths(paths, outputs, positions, budget)
    carried = float((counts * paths).sum()) / most if most else 0.0
    kernels = int((alive >= 1).sum()) / budget
    return alpha * nodes / (inputs + outputs) + (1 - alpha) * carried + beta * kernels


def best_by_trying(
    paths: Any, outputs: int, positions: int, weightings: list[tuple[float, float]]
) -> dict[tuple[int, float, float], float]:
    """Return the largest value for every budget and weighting, from all there are."""
    best: dict[tuple[int, float, float], float] = {}
    shape = (outputs, len(paths))
    for flat in itertools.product(range(positions + 1), repeat=outputs * len(paths)):
        counts = np.array(flat).reshape(shape)
        budget = int(counts.sum())
        for alpha, beta in weightings if budget else []:
            found = value(counts, paths, positions, budget, alpha, beta)
            key = (budget, alpha, beta)
            best[key] = max(found, best.get(key, -1.0))
    return best


@pytest.mark.parametrize(
    ("paths", "outputs", "positions"),
    [
        ([1.0, 1.0], 2, 4),
        ([3.0, 1.0], 2, 4),
        ([1.0, 0.0], 2, 4),
        ([1.0, 1e-6, 0.5], 2, 2),
        ([2.0, 1.9, 0.0], 2, 2),
        ([5.0, 4.0], 3, 2),
        ([7.0, 7.0, 1.0], 3, 1),
        ([1.0], 5, 2),
        ([1.0, 2.0, 3.0, 4.0], 1, 4),
        ([0.0, 0.0], 2, 2),
    ],
    ids=str,
)
def test_no_counts_are_better_whatever_the_budget(paths, outputs, positions):
    p = np.array(paths)
    best = best_by_trying(p, outputs, positions, WEIGHTINGS)
    assert len(best) == outputs * len(paths) * positions * len(WEIGHTINGS)
    for (budget, alpha, beta), optimum in best.items():
        counts = kernel_counts(p, outputs, positions, budget, alpha=alpha, beta=beta)
        assert counts.shape == (outputs, len(paths))
        assert counts.sum() == budget
        assert counts.min() >= 0
        assert counts.max() <= positions
        found = value(counts, p, positions, budget, alpha, beta)
        assert found == pytest.approx(optimum, rel=1e-9), (budget, alpha, beta)


def test_of_inputs_many_orders_apart_those_of_the_most_paths_are_filled_first():
    p = 10.0 ** -np.arange(0, 40, 5)
    for budget in range(1, 8 * 6):
        counts = kernel_counts(p, 3, 2, budget, alpha=0.0, beta=0.0)
        assert counts.sum(0).tolist() == np.diff(np.minimum(6 * np.arange(9), budget)).tolist()


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_only_ratios_of_path_numbers_matter(factor):
    p = np.array([3.0, 1.0, 0.0, 2.0])
    for budget in range(1, 33):
        counts = kernel_counts(p, 4, 2, budget, alpha=0.1, beta=0.3)
        scaled = kernel_counts(p * factor, 4, 2, budget, alpha=0.1, beta=0.3)
        assert np.array_equal(counts, scaled)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_equal_inputs_and_outputs_share_evenly(beta):
    for budget in range(1, 55):
        counts = kernel_counts(np.ones(3), 2, 9, budget, alpha=0.01, beta=beta)
        assert np.ptp(counts.sum(0)) <= 1
        assert np.ptp(counts.sum(1)) <= 1


def test_the_regulariser_spreads():
    spread = kernel_counts(np.array([1.0, 2.0]), 2, 9, 6, alpha=0.0, beta=1.0)
    assert (spread >= 1).all()
    assert spread.sum(0).tolist() == [2, 4]


@pytest.mark.parametrize(
    ("paths", "budget", "alpha", "beta", "counts"),
    [
        ([1, 2], 6, 0.0, 0.0, [[0, 3], [0, 3]]),  # the best input is filled first
        ([0, 1], 6, 0.9, 1.0, [[0, 3], [0, 3]]),  # dead ones only when the others are full
        ([0, 1], 8, 0.9, 1.0, [[1, 3], [1, 3]]),
        ([0, 1], 0, 0.1, 1.0, [[0, 0], [0, 0]]),
        ([0, 1], 12, 0.1, 1.0, [[3, 3], [3, 3]]),
    ],
)
def test_by_hand(paths, budget, alpha, beta, counts):
    found = kernel_counts(np.array(paths, float), 2, 3, budget, alpha=alpha, beta=beta)
    assert found.tolist() == counts


@pytest.mark.parametrize("capacities", [[3, 1, 4], [2, 2, 2], [0, 5], [7], [0, 0]], ids=str)
def test_units_are_spread_as_water_fills_vessels(capacities):
    for units in range(sum(capacities) + 1):
        shares = [0] * len(capacities)
        for _ in range(units):  # one unit at a time, into the lowest that has room
            room = [j for j, capacity in enumerate(capacities) if shares[j] < capacity]
            shares[min(room, key=lambda j: shares[j])] += 1
        assert _spread(np.array(capacities), units).tolist() == shares
