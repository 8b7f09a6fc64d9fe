"""Budgets of multiply-accumulates (MACs): how many weights a limit of work leaves.

A kept weight costs one MAC at every position that it is used at, so a convolution's weight at the
input of an image network costs a thousand times as much as one of the classifier.
"""

import torch
from torch import nn

from sculpt.diagnostics.cost import Cost
from sculpt.errors import BudgetError
from sculpt.pruning.masks import Masks, Scores
from sculpt.pruning.patterns import Pattern


def check_macs(model: nn.Module, cost: Cost, macs: int, pattern: Pattern | None) -> None:
    """Refuse a network that takes fewer MACs than the budget, even with all its weights.

    Raises:
        BudgetError: the message says how many it takes.
    """
    weights = cost.weights | (pattern.limits(model) if pattern else {})
    room = sum(uses * weights[name] for name, uses in cost.positions.items())
    if room < macs:
        kept = f"the {pattern} of its weights that granularity leaves" if pattern else "all weights"
        raise BudgetError(
            f"a network must take at least the budget's {macs} MACs, but takes {room} with "
            f"{kept}; choose a larger network or a smaller budget"
        )


def fill_up(
    masks: Masks, scores: Scores, cost: Cost, *, macs: int, room: int, exponent: float
) -> Masks:
    """Spend the MACs that a ranking left, on the best of the weights that are cheap enough.

    The next weight of a ranking may cost more than is left.

    Args:
        masks: What the ranking keeps.
        scores: Of single weights; 0 fills nothing.
        cost: Of the network.
        macs: The budget.
        room: Most weights to add.
        exponent: The rule's `mac_exponent`.
    """
    names = [name for name in scores if cost.positions.get(name)]
    ranked, prices = [], []
    for name in names:
        score, uses = scores[name].where(~masks[name], 0), cost.positions[name]
        ranked.append((score / uses**exponent).flatten())
        prices.append(torch.full_like(score, uses, dtype=torch.int64).flatten())
    others, price, left = torch.cat(ranked), torch.cat(prices), macs - cost.kept_macs(masks)
    order = others.argsort(descending=True, stable=True)
    order = order[others[order] != 0]
    chosen = torch.zeros_like(others, dtype=torch.bool)
    while room > 0 and len(order := order[price[order] <= left]):
        # At least the first of them fits.
        taken = order[price[order].cumsum(0) <= left][:room]
        chosen[taken] = True
        left -= int(price[taken].sum())
        room -= len(taken)
        order = order[~chosen[order]]
    parts = chosen.split([scores[name].numel() for name in names])
    filled = {
        name: masks[name] | part.view(masks[name].shape)
        for name, part in zip(names, parts, strict=True)
    }
    return masks | filled
