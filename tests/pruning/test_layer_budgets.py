"""Layer budgets: the formula, the cap, and sums that are exact."""

import math

import pytest
import torch
from torch import Tensor, nn

from sculpt.errors import BudgetError
from sculpt.pruning.criteria.random import erk_random
from sculpt.pruning.layer_budgets import erk_counts
from sculpt.pruning.task import PruningTask

# An MLP's layer that caps early, and a convolution's kernel that is not square.
SHAPES = {
    "stem.weight": (16, 3, 3, 3),
    "stem.bias": (16,),
    "conv.weight": (32, 16, 3, 1),
    "deep.weight": (64, 32, 3, 3),
    "classifier.weight": (10, 64),
    "classifier.bias": (10,),
}
WEIGHTS = {name: shape for name, shape in SHAPES.items() if len(shape) > 1}
TOTAL = sum(math.prod(shape) for shape in SHAPES.values())


def real_counts(shapes: dict[str, tuple[int, ...]], kept: int) -> dict[str, float]:
    """Return ε · (sum of the shape), at most the size, with ε found by bisection."""
    weights = {name: shape for name, shape in shapes.items() if len(shape) > 1}

    def counts(epsilon: float) -> dict[str, float]:
        return {n: min(math.prod(shape), epsilon * sum(shape)) for n, shape in weights.items()}

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(counts(middle).values()) < kept else (low, middle)
    return counts(low)


@pytest.mark.parametrize(
    ("shapes", "budgets"),
    [
        (SHAPES, [0, 1, 5, 100, 1234, 5000, 12000, 20000]),
        ({"a": (2, 1, 2, 2), "b": (3, 2), "c": (1, 3), "d": (4,)}, range(22)),
        ({"a": (1, 1), "b": (3, 4), "c": (10, 10)}, range(114)),  # a full layer fills the next
    ],
    ids=["network", "small", "chain"],
)
def test_counts_are_the_formulas_to_the_next_integer_and_add_up(shapes, budgets):
    for kept in budgets:
        counts = erk_counts(shapes, kept)
        assert list(counts) == list(shapes)
        assert sum(counts.values()) == kept
        assert all(0 <= counts[name] <= math.prod(shape) for name, shape in shapes.items())
        for name, count in real_counts(shapes, kept).items():
            assert abs(counts[name] - count) < 1, (kept, name)


def test_the_largest_remainders_are_rounded_up_and_ties_go_to_the_first():
    # Shares 10/3 each.
    assert erk_counts({"a": (5, 5), "b": (5, 5), "c": (5, 5)}, 10) == {"a": 4, "b": 3, "c": 3}
    # Shares 10 · 9/24 = 3.75, 10 · 9/24 = 3.75 and 2.5: the tied two are rounded up.
    assert erk_counts({"a": (3, 3), "b": (4, 5), "c": (5, 4)}, 10) == {"a": 2, "b": 4, "c": 4}


def test_biases_keep_nothing_until_every_weight_is_kept():
    weights = sum(math.prod(shape) for shape in WEIGHTS.values())
    for kept in (weights - 1, weights):
        counts = erk_counts(SHAPES, kept)
        assert (counts["stem.bias"], counts["classifier.bias"]) == (0, 0)
    counts = erk_counts(SHAPES, weights + 13)
    assert (counts["stem.bias"], counts["classifier.bias"]) == (8, 5)
    assert erk_counts(SHAPES, TOTAL) == {n: math.prod(shape) for n, shape in SHAPES.items()}


@pytest.mark.parametrize("kept", [-1, TOTAL + 1])
def test_a_budget_out_of_range_is_refused(kept):
    with pytest.raises(BudgetError, match=f"must be from 0 to {TOTAL}, but got {kept}"):
        erk_counts(SHAPES, kept)


def erk_scores(model: nn.Module, kept: int, seed: int = 0) -> dict[str, Tensor]:
    return erk_random(
        model, PruningTask(model, kept, generator=torch.Generator().manual_seed(seed))
    )


def test_random_masks_keep_these_counts():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for kept in (1, 100, 700, 1368, 1380, 1392):
        scores = erk_scores(model, kept)
        counts = {name: int(tensor.count_nonzero()) for name, tensor in scores.items()}
        assert counts == erk_counts(shapes, kept)
        assert all((tensor >= 0).all() for tensor in scores.values())


def test_every_position_of_a_random_mask_is_as_likely():
    model = nn.Linear(5, 4, bias=False)
    often = sum((erk_scores(model, 5, seed)["weight"] > 0).double() for seed in range(500))
    # Five standard errors of a mean of 500 draws with probability 1/4.
    assert ((often / 500 - 0.25).abs() < 5 * (0.25 * 0.75 / 500) ** 0.5).all()


def test_equal_draws_are_not_kept_together(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.zeros(*size))
    assert int(erk_scores(nn.Linear(5, 4), 7)["weight"].count_nonzero()) == 7
