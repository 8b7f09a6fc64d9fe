"""Masks of whole channels: those of a residual stream in all the layers that share it."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sculpt.diagnostics.arguments import InputShape
from sculpt.diagnostics.layers import by_output, weights_of
from sculpt.errors import BudgetError, SculptWarning
from sculpt.graph.channels import Mask
from sculpt.graph.trace import NotTraceableError
from sculpt.pruning.channel_units import ChannelUnits, find_channel_units
from sculpt.pruning.groups import keep_highest_rows
from sculpt.pruning.masks import Masks, Scores, check_usable


def keep_highest_channels(
    model: nn.Module, scores: Scores, kept: int, input_shape: InputShape
) -> Masks:
    """Keep the channels of the highest scores, as many as fit into the budget.

    What is ranked is a unit, see `channel_units`: one channel in all the layers that write or read
    it. Its score is the sum of the scores of the rows that it has in all of them, biases included,
    for each parameter that goes with it, rows and columns, as long as all others stay. By the sum
    alone, a unit that spares many parameters would count as one that spares few: torchvision's
    ResNet50 (30 % kept by connection sensitivity, 8 random images, seed 0) had a layer with 1
    channel of 64, and none has less than 0.27 of its channels by the quotient; of ResNet18 by
    magnitude 7 layers were left with 1 channel, and 2 with 1 or 2 are.

    Every layer is dense on what is left, and `sculpt.compact` stores just that. Each result in the
    forward pass keeps a channel. Inputs and classes always stay, and so do the channels around
    calls that are not understood, such as a norm over several channels.

    Where a forward pass cannot be traced, or more stays around such calls than the budget, the
    rows of each layer are ranked by themselves: see `keep_highest_rows`.

    Returns:
        Masks that keep at most `kept` weights and biases, as near to it as whole channels allow.

    Raises:
        BudgetError: one channel of every layer is more than the budget.
        DryRankingError: fewer than `kept` weights are in channels with a score other than zero.

    Warns:
        SculptWarning: the rows of each layer are ranked by themselves, and why.
    """
    try:
        units = find_channel_units(model, input_shape, scores.keys())
    except NotTraceableError as error:
        reason = f"a forward pass must be traceable to follow them (torch.fx), but {error}"
    else:
        values = _values(units, scores, weights_of(model))
        least = units.fixed | _firsts(units, values)
        count = units.count(least)
        if count <= kept:
            return _masks(model, units, scores, _keep_best(units, values, least, scores, kept))
        if not units.left_whole:
            raise BudgetError(
                f"a budget must hold one channel of every layer ({count} weights), but "
                f"got {kept}; choose a larger budget, a narrower network or another granularity"
            )
        reason = (
            f"{count} weights must stay around {', '.join(units.left_whole)}, of which it is not "
            f"known what they do with channels, but the budget is {kept}"
        )
    warnings.warn(
        "channels are removed of each layer by itself, and sculpt.compact leaves more than the "
        f"budget, because {reason}",
        SculptWarning,
        stacklevel=2,
    )
    return keep_highest_rows(model, scores, kept, input_shape)


def _values(units: ChannelUnits, scores: Scores, owners: dict[str, str]) -> NDArray[np.float64]:
    """Sum the scores of the rows of each unit, for each parameter that goes with it: (units,)."""
    values = np.zeros(len(units.fixed))
    for name, score in scores.items():
        if layer := units.layers.get(owners[name]):
            rows = by_output(layer.layer, score).flatten(1) if owners[name] == name else score
            sums = rows.double().reshape(layer.rows.size, -1).sum(1)
            np.add.at(values, layer.rows.flatten(), sums.cpu().numpy())
    return values / np.maximum(units.sizes(np.ones_like(units.fixed)), 1)


def _firsts(units: ChannelUnits, values: NDArray[np.float64]) -> Mask:
    """Choose the best unit of each result, or layers would starve of which all units rank low."""
    firsts = np.zeros_like(units.fixed)
    for own in units.places:
        there = own[units.on_path[own]]
        if len(there) and not units.fixed[there].any():
            firsts[there[values[there].argmax()]] = True
    return firsts


def _keep_best(
    units: ChannelUnits, values: NDArray[np.float64], least: Mask, scores: Scores, kept: int
) -> Mask:
    """Add the best units to the least ones, as many as fit, and smaller ones that still do."""
    total = sum(score.numel() for score in scores.values())
    rest = np.flatnonzero(units.on_path & ~least)
    order = rest[np.argsort(-values[rest], kind="stable")]
    if kept < total:
        scored = order[values[order] != 0]
        lost = _with(least, order), _with(least, scored)
        check_usable(scores, kept, total - units.count(lost[0]) + units.count(lost[1]))
        order = scored
    # More units never make the network smaller: the largest number that fits is bisected.
    fits, too_many = 0, len(order) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if units.count(_with(least, order[:middle])) <= kept:
            fits = middle
        else:
            too_many = middle
    chosen, others = _with(least, order[:fits]), order[fits:]
    while len(others):
        left = kept - units.count(chosen)
        fitting = np.flatnonzero(units.sizes(chosen)[others] <= left)
        if not left or not len(fitting):
            break
        chosen[others[fitting[0]]] = True
        others = others[fitting[1:]]
    return chosen


def _with(least: Mask, more: NDArray[np.int64]) -> Mask:
    kept = least.copy()
    kept[more] = True
    return kept


def _masks(model: nn.Module, units: ChannelUnits, scores: Scores, kept: Mask) -> Masks:
    """Make the masks of kept units; nothing stays of layers that the output does not depend on."""
    owners, masks = weights_of(model), {}
    for name, score in scores.items():
        if layer := units.layers.get(owners[name]):
            mask = layer.mask(kept) if name == owners[name] else layer.row_mask(kept)
        else:
            mask = torch.full(score.shape, name in units.whole)
        masks[name] = mask.to(score.device)
    return masks
