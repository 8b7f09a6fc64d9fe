"""Iterative SNIP against connection sensitivity, round by round."""

from collections.abc import Iterator

import pytest
import torch
from networks import conv_net, equal
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.criteria.connection_sensitivity import connection_sensitivity
from sculpt.pruning.criteria.iterative_snip import iterative_snip
from sculpt.pruning.masks import apply_masks, keep_highest
from sculpt.pruning.task import PruningTask


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    images = torch.randn(
        12, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return zip(images.split(5), (torch.arange(12) % 3).split(5), strict=True)


@pytest.mark.parametrize(
    "options", [{}, {"targets": "gt"}, {"batch_norm": "batch"}], ids=["default", "gt", "batch"]
)
def test_one_round_is_connection_sensitivity(options):
    model = conv_net()
    task = PruningTask(model, 20, batches)
    expected = connection_sensitivity(model, task, **options)
    assert equal(iterative_snip(model, task, rounds=1, **options), expected)


def test_three_rounds_written_out():
    model, reference, kept = conv_net(), conv_net(), 4
    total = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("1."))

    def one_shot(network: nn.Module) -> dict[str, Tensor]:
        return connection_sensitivity(network, PruningTask(network, kept, batches), targets="gt")

    first = keep_highest(one_shot(model), kept)
    for current in (1, 2):
        left = round(total * (kept / total) ** (current / 3))
        apply_masks(reference, keep_highest(one_shot(reference), left))
    scores = iterative_snip(model, PruningTask(model, kept, batches), rounds=3, targets="gt")
    assert equal(scores, one_shot(reference))
    assert not equal(keep_highest(scores, kept), first)


def test_an_option_that_is_none_is_refused():
    model = conv_net()
    with pytest.raises(InputError, match="targets must be one of uniform, gt"):
        iterative_snip(model, PruningTask(model, 20, batches), targets="labels")
