"""Masks of whole groups of weights: k×k kernels, or the rows of layers."""

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import InputShape
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import (
    by_output,
    from_outputs,
    kept_weights,
    layer_groups,
    weighted_layers,
    weights_of,
)
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import BudgetError
from sculpt.pruning.masks import Masks, Scores, check_usable

MOST_FILLERS = 32
"""Channels tried one by one where the next best does not fit."""


def keep_highest_kernels(scores: Scores, kept: int) -> Masks:
    """Keep the kernels of the highest summed scores, as many as fit into the budget.

    A kernel spans the dimensions after the second; a weight of a linear layer and a bias are
    groups of one. The best kernels are taken first; where the next does not fit, smaller groups
    further down the ranking fill the rest.

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


def usable_weights(score: Tensor, by_kernel: bool) -> int:
    """Count the weights of a parameter that have a score, or whose kernels have one."""
    if not by_kernel or score.dim() <= 2:
        return int(torch.count_nonzero(score))
    sums = score.flatten(2).sum(2)
    return int(torch.count_nonzero(sums)) * (score.numel() // sums.numel())


def keep_highest_rows(
    model: nn.Module, scores: Scores, kept: int, input_shape: InputShape
) -> Masks:
    """Keep the layers' rows of the highest summed scores, as many as fit into the budget.

    It asks for no more than that paths can be followed, see `keep_highest_channels` for what is
    done if more is known. A row is one output channel's weights and its bias. Removing it also
    removes the weights that read only it and the weights that only it reads: a row and a column of
    two layers, and more where that empties others. The rest lies on a path from input to output, so
    every layer is dense on its remaining channels, but channels of a residual stream live on by
    their shortcut. The outputs of the last layer are the classes and always stay.

    Returns:
        Masks that keep at most `kept` weights and biases, as near to it as whole channels allow.

    Raises:
        BudgetError: one channel of every layer is more than the budget.
        DryRankingError: fewer than `kept` weights are in channels with a score above zero.
    """
    *before_classes, _ = measure_cost(model, input_shape).positions
    ranked = [name for name in before_classes if name in scores]
    layers, owners = weighted_layers(model), weights_of(model)

    def by_row(name: str) -> Tensor:
        """View the scores of a weight or bias by output channel: (out, ...)."""
        return by_output(layers[name], scores[name]) if name in layers else scores[name][:, None]

    def row_sums(weight: str) -> Tensor:
        """Sum the scores of each output channel, its biases included: (out,)."""
        own = [by_row(name).flatten(1).sum(1) for name in scores if owners[name] == weight]
        return torch.stack(own).sum(0)

    sums = {name: row_sums(name) for name in ranked}
    flat = torch.cat([total.double() for total in sums.values()]) if ranked else torch.zeros(0)
    usable = 0  # weights in channels with a score, and of the last layer
    for name in scores:
        rows = by_row(name)
        scored = sums.get(owners[name], torch.ones(len(rows)))
        usable += int((scored != 0).sum()) * rows[0].numel()
    check_usable(scores, kept, usable)
    # Each layer keeps the best channel of each of its groups (a group whose inputs are gone goes
    # with them), or the sums of wide layers would starve narrow ones of all they have, and the
    # network of its paths.
    firsts: list[int] = []
    start = 0
    for name, total in sums.items():
        for group in total.chunk(layer_groups(layers[name])):
            firsts.append(start + int(group.argmax()))
            start += len(group)
    ranks = flat.clone()
    ranks[firsts] = torch.inf
    order = ranks.argsort(descending=True, stable=True)
    order = order[ranks[order] != 0]

    def masks_of(chosen: Tensor) -> Masks:
        alive = torch.zeros_like(flat, dtype=torch.bool)
        alive[chosen] = True
        rows = dict(zip(ranked, alive.split([len(sums[name]) for name in ranked]), strict=True))
        masks = {}
        for name in scores:
            mask = torch.ones_like(by_row(name), dtype=torch.bool)
            if owners[name] in rows:
                mask &= rows[owners[name]].view(-1, *[1] * (mask.dim() - 1))
            masks[name] = from_outputs(layers[name], mask) if name in layers else mask[:, 0]
        effective = measure_topology(model, masks, input_shape).effective
        return {name: effective[name] for name in scores}

    # More channels never make the network smaller: the largest number that fits is bisected.
    fits, too_many, best = len(firsts), len(order) + 1, masks_of(order[: len(firsts)])
    if kept_weights(best) > kept:
        raise BudgetError(
            f"a budget must hold one channel of every layer ({kept_weights(best)} weights), but "
            f"got {kept}; choose a larger budget, a narrower network or another granularity"
        )
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        masks = masks_of(order[:middle])
        if kept_weights(masks) <= kept:
            fits, best = middle, masks
        else:
            too_many = middle
    chosen = order[:fits]
    for filler in order[fits + 1 : fits + 1 + MOST_FILLERS]:
        if kept_weights(best) == kept:
            break
        extended = torch.cat([chosen, filler[None]])
        masks = masks_of(extended)
        if kept_weights(best) < kept_weights(masks) <= kept:
            chosen, best = extended, masks
    return best
