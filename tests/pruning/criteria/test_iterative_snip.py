"""Iterative SNIP against connection sensitivity, round by round."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.criteria.connection_sensitivity import connection_sensitivity
from sculpt.pruning.criteria.iterative_snip import iterative_snip
from sculpt.pruning.masks import apply_masks, keep_highest
from sculpt.pruning.task import PruningTask


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    ).double()
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=stream)
    return model


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    images = torch.randn(
        12, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return zip(images.split(5), (torch.arange(12) % 3).split(5), strict=True)


@pytest.mark.parametrize(
    "options", [{}, {"targets": "gt"}, {"batch_norm": "batch"}], ids=["default", "gt", "batch"]
)
def test_one_round_is_connection_sensitivity(options: dict[str, Any]):
    model = network()
    task = PruningTask(model, 20, batches)
    expected = connection_sensitivity(model, task, **options)
    for name, scores in iterative_snip(model, task, rounds=1, **options).items():
        assert torch.equal(scores, expected[name]), name


def test_three_rounds_written_out():
    model, reference = network(), network()
    total = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("1."))
    kept = 4

    for current in (1, 2):
        scores = connection_sensitivity(
            reference, PruningTask(reference, kept, batches), targets="gt"
        )
        left = round(total * (kept / total) ** (current / 3))
        apply_masks(reference, keep_highest(scores, left))
    expected = connection_sensitivity(
        reference, PruningTask(reference, kept, batches), targets="gt"
    )

    scores = iterative_snip(model, PruningTask(model, kept, batches), rounds=3, targets="gt")

    for name in expected:
        assert torch.equal(scores[name], expected[name]), name
    one_shot = connection_sensitivity(model, PruningTask(model, kept, batches), targets="gt")
    last, first = keep_highest(scores, kept), keep_highest(one_shot, kept)
    assert any(not torch.equal(last[name], first[name]) for name in last)


def test_the_defaults_are_connection_sensitivitys():
    model, task = network(), PruningTask(network(), 20, batches)
    stated = iterative_snip(model, task, rounds=100, targets="uniform", batch_norm="identity")
    for name, scores in iterative_snip(model, task).items():
        assert torch.equal(scores, stated[name]), name


def test_an_option_that_is_none_is_refused():
    model = network()
    with pytest.raises(InputError, match="targets must be one of uniform, gt"):
        iterative_snip(model, PruningTask(model, 20, batches), targets="labels")  # type: ignore[arg-type]
