"""ERK-random: the counts, and that every position is as likely as another."""

import pytest
import torch
from torch import Tensor, nn

from sculpt.pruning.criteria.random import erk_random
from sculpt.pruning.layer_budgets import erk_counts
from sculpt.pruning.task import PruningTask


def score(model: nn.Module, kept: int, seed: int = 0) -> dict[str, Tensor]:
    return erk_random(
        model, PruningTask(model, kept, generator=torch.Generator().manual_seed(seed))
    )


def test_each_layer_keeps_what_erk_says():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for kept in (1, 100, 700, 1368, 1380, 1392):
        scores = score(model, kept)
        counts = {name: int(tensor.count_nonzero()) for name, tensor in scores.items()}
        assert counts == erk_counts(shapes, kept)
        assert all((tensor >= 0).all() for tensor in scores.values())


def test_every_position_is_as_likely():
    model = nn.Linear(5, 4, bias=False)
    often = sum((score(model, 5, seed)["weight"] > 0).double() for seed in range(2000))
    # Five standard errors of a mean of 2000 draws with probability 1/4.
    assert ((often / 2000 - 0.25).abs() < 5 * (0.25 * 0.75 / 2000) ** 0.5).all()


def test_equal_draws_are_not_kept_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.zeros(*size))
    assert int(score(nn.Linear(5, 4), 7)["weight"].count_nonzero()) == 7
