"""Keeping and removing whole convolution kernels: the k×k weights between two channels."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sculpt.pruning.masks import Masks, check_usable


def keep_highest_kernels(scores: Mapping[str, Tensor], kept: int) -> Masks:
    """Keep the kernels of the highest summed scores, as many as fit into the budget.

    A kernel is what is in the dimensions after the second; a weight of a linear layer and a bias
    are groups of one. Kernels are taken from the best down; where the next does not fit, smaller
    groups further down fill what is left.

    Returns:
        Masks that keep at most `kept` weights, fewer by less than the smallest group left out.

    Raises:
        DryRankingError: fewer than `kept` weights are in groups with a score above zero.
    """
    sums = {
        name: score.flatten(2).sum(2) if score.dim() > 2 else score
        for name, score in scores.items()
    }
    sizes = {name: scores[name].numel() // max(sums[name].numel(), 1) for name in scores}
    group_scores = torch.cat([group.flatten() for group in sums.values()])
    group_sizes = torch.cat(
        [torch.full((group.numel(),), sizes[name]) for name, group in sums.items()]
    ).to(group_scores.device)
    check_usable(scores, kept, int(group_sizes[group_scores != 0].sum()))

    order = group_scores.argsort(descending=True, stable=True)
    order = order[group_scores[order] != 0] if kept < int(group_sizes.sum()) else order
    ordered = group_sizes[order]
    taken = ordered.cumsum(0) <= kept
    rest = kept - int(ordered[taken].sum())
    while rest > 0:
        fitting = torch.nonzero(~taken & (ordered <= rest)).flatten()
        if not len(fitting):
            break
        taken[fitting[0]] = True
        rest -= int(ordered[fitting[0]])
    chosen = torch.zeros_like(group_scores, dtype=torch.bool)
    chosen[order[taken]] = True
    parts = chosen.split([group.numel() for group in sums.values()])
    return {
        name: part.view(sums[name].shape)[(...,) + (None,) * (score.dim() - sums[name].dim())]
        .expand_as(score)
        .clone()
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }
