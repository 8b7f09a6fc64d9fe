"""Counters of batch norms, `num_batches_tracked`, of all layers at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def plain_norms(model: nn.Module) -> list[nn.Module]:
    """List the batch norms that count as torch's own do, and not in a way of a subclass's."""
    return [module for module in model.modules() if type(module) in PLAIN_NORMS]


@contextmanager
def counted_at_once(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Let plain batch norms take a batch without counting it, and count it for all of them.

    Each would do so by an operation of its own, which on a GPU costs as much as one that computes.
    """
    # A norm without momentum reads its count.
    counting: list[Any] = [
        norm
        for norm in norms
        if norm.training and norm.num_batches_tracked is not None and norm.momentum is not None
    ]
    counts = [norm.num_batches_tracked for norm in counting]
    for norm in counting:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, count in zip(counting, counts, strict=True):
            norm.num_batches_tracked = count
    if counts:
        torch._foreach_add_(counts, 1)
