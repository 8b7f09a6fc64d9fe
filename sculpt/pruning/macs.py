"""Budgets of multiply-accumulates (MACs): how many weights a limit of work leaves.

A kept weight costs one MAC at every position that it is used at, so a convolution's weight at the
input of an image network costs a thousand times as much as one of the classifier.
"""

from collections.abc import Mapping

import torch
from torch import nn

from sculpt.errors import BudgetError
from sculpt.pruning.masks import Masks, Scores
from sculpt.pruning.patterns import Pattern

Positions = Mapping[str, int]
"""Uses of each weight for one input, by parameter name; biases are not counted."""


def check_macs(model: nn.Module, positions: Positions, macs: int, pattern: Pattern | None) -> None:
    """Refuse a network that takes fewer MACs than the budget, even with all its weights.

    Raises:
        BudgetError: the message says how many it takes.
    """
    limits = pattern.limits(model) if pattern else {}
    room = sum(
        uses * limits.get(name, model.get_parameter(name).numel())
        for name, uses in positions.items()
    )
    if room < macs:
        kept = f"the {pattern} of its weights that granularity leaves" if pattern else "all weights"
        raise BudgetError(
            f"a network must take at least the budget's {macs} MACs, but takes {room} with "
            f"{kept}; choose a larger network or a smaller budget"
        )


def fill_up(
    masks: Masks, scores: Scores, positions: Positions, *, macs: int, room: int, exponent: float
) -> Masks:
    """Spend the MACs that a ranking left, on the best of the weights that are cheap enough.

    The next weight of a ranking may cost more than is left.

    Args:
        masks: What the ranking keeps.
        scores: Of single weights; 0 fills nothing.
        positions: Uses of each weight.
        macs: Multiply-accumulates that are left.
        room: Most weights to add.
        exponent: The rule's `mac_exponent`.
    """
    names = [name for name in scores if positions.get(name)]
    priced, costs = [], []
    for name in names:
        score, uses = scores[name].where(~masks[name], 0), positions[name]
        priced.append((score / uses**exponent).flatten())
        costs.append(torch.full_like(score, uses, dtype=torch.int64).flatten())
    others, cost = torch.cat(priced), torch.cat(costs)
    order = others.argsort(descending=True, stable=True)
    order = order[others[order] != 0]
    chosen = torch.zeros_like(others, dtype=torch.bool)
    while room > 0 and len(order := order[cost[order] <= macs]):
        # At least the first of them fits.
        taken = order[cost[order].cumsum(0) <= macs][:room]
        chosen[taken] = True
        macs -= int(cost[taken].sum())
        room -= len(taken)
        order = order[~chosen[order]]
    parts = chosen.split([scores[name].numel() for name in names])
    filled = {
        name: masks[name] | part.view(masks[name].shape)
        for name, part in zip(names, parts, strict=True)
    }
    return masks | filled


def macs_of(masks: Masks, positions: Positions) -> int:
    """Count the multiply-accumulates on kept weights."""
    return sum(int(masks[name].sum()) * uses for name, uses in positions.items() if name in masks)


def _equal(one: Scores, other: Scores) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
