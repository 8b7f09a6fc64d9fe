"""From scores to masks: what is ranked against what, in which groups, and at which price."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import kept_weights, weight_of
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import BudgetError, DryRankingError, InputError, check_choice
from sculpt.pruning.channels import keep_highest_channels
from sculpt.pruning.kernels import keep_highest_kernels
from sculpt.pruning.layer_budgets import proportional_counts
from sculpt.pruning.masks import Masks, Scores, check_finite, keep_highest

Scope = Literal["global", "layer"]
Granularity = Literal["weight", "kernel", "channel"]

FILLED_BY_SINGLES = 0.01
"""Share of an effective budget that may go to single weights; to rank closer takes long."""


@dataclass(frozen=True)
class Selection:
    """How scores become masks; by default the highest scores of the whole network are kept.

    Raises:
        InputError: a word is none of the known ones, or two settings do not go together.
    """

    scope: Scope = "global"
    """`layer` ranks each layer (its weight and bias) for itself, all at one density."""
    granularity: Granularity = "weight"
    """`kernel` keeps or removes the k×k weights between two channels as a whole, `channel` an
    output channel with everything that reads it. Scores are summed over such a group. The budget
    is then met as closely as whole groups allow, and never exceeded."""
    mac_exponent: float = 0.0
    """p: a score is divided by (H·W)^p of its layer's output, how often its weight is used."""
    effective: bool = False
    """Spend what would be kept but lies on no path from input to output on weights that do."""

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, get_args(Scope))
        check_choice("granularity", self.granularity, get_args(Granularity))
        if self.granularity == "channel" and self.scope == "layer":
            raise InputError(
                "whole channels must be ranked over the network (removing one shrinks two "
                "layers), but got granularity 'channel' with scope 'layer'; use scope 'global'"
            )


def select_masks(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    kept: int,
    selection: Selection,
    input_shape: tuple[int, ...] | None,
) -> Masks:
    """Return the masks of the highest scores.

    Args:
        model: Whose prunable parameters are scored; not changed.
        scores: Higher = keep, keyed by parameter name.
        kept: How many weights and biases to keep. Met exactly, except by whole groups and by
            `effective` where too few weights lie on a path; then as many as possible are kept.
        selection: Scope, granularity, price, and whether ineffective weights are replaced.
        input_shape: Of one input, without its batch dimension.

    Raises:
        NumericsError: a score is not finite; the message names the parameter.
        BudgetError: `kept` is out of range.
        DryRankingError: too few scores are non-zero; the message names the layers without any.
        InputError: the input's shape is needed and not known.
    """
    check_finite(scores)
    total = sum(score.numel() for score in scores.values())
    if not 0 <= kept <= total:
        raise BudgetError(f"the number of kept weights must be from 0 to {total}, but got {kept}")
    priced = dict(scores)
    if selection.mac_exponent or selection.effective or selection.granularity == "channel":
        shape = required_shape(input_shape, "mac_exponent, effective and granularity 'channel'")
        if p := selection.mac_exponent:
            # A weight that is used at many positions must earn its MACs.
            positions = measure_cost(model, shape).positions
            priced = {n: score / positions[weight_of(n)] ** p for n, score in scores.items()}
        if selection.granularity == "channel":
            return keep_highest_channels(model, priced, kept, shape)
        if selection.effective:
            return _spend_on_paths(model, priced, kept, selection, shape)
    return _keep(priced, partition(priced, kept, selection.scope), selection.granularity)


def required_shape(input_shape: tuple[int, ...] | None, who: str) -> tuple[int, ...]:
    """Return the shape of an input.

    Raises:
        InputError: it is not known; the message says who asks for it.
    """
    if input_shape is None:
        raise InputError(
            f"{who} must know the shape of an input, but got none; give inputs= or "
            "input_shape=, for example input_shape=(3, 32, 32)"
        )
    return input_shape


def partition(scores: Scores, kept: int, scope: Scope) -> dict[tuple[str, ...], int]:
    """Return what is ranked together, as names of parameters, and how much of it is kept."""
    if scope == "global":
        return {tuple(scores): kept}
    layers: dict[str, list[str]] = {}
    for name in scores:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    sizes = {layer: sum(scores[name].numel() for name in names) for layer, names in layers.items()}
    counts = proportional_counts(sizes, kept)
    return {tuple(names): counts[layer] for layer, names in layers.items()}


def _keep(scores: Scores, parts: dict[tuple[str, ...], int], granularity: Granularity) -> Masks:
    keep = keep_highest if granularity == "weight" else keep_highest_kernels
    masks: Masks = {}
    for names, count in parts.items():
        masks |= keep({name: scores[name] for name in names}, count)
    return {name: masks[name] for name in scores}


def _spend_on_paths(
    model: nn.Module, scores: Scores, kept: int, selection: Selection, input_shape: tuple[int, ...]
) -> Masks:
    """Return masks of which every kept weight lies on a path, with as much of the budget spent.

    The ranking is widened until what lies on paths nearly fills the budget (dead nodes come
    alive on the way), and single weights fill the rest: each joins two nodes that are alive, so
    it is on a path whatever the others are. Where the ranking connects the network only with
    more weights than the budget, these are cut down to it, sparing a way in and out of each node.
    """

    def on_paths(width: int) -> Masks:
        parts = partition(scores, width, selection.scope)
        return measure_topology(
            model, _keep(scores, parts, selection.granularity), input_shape
        ).effective

    best, too_much = on_paths(kept), None
    step = max(1, kept - kept_weights(best))
    low, high = kept, _usable(scores) + 1
    while high - low > 1 and kept_weights(best) < (1 - FILLED_BY_SINGLES) * kept:
        width = min(low + step, (low + high) // 2)
        step *= 2
        try:
            found = on_paths(width)
        except DryRankingError:  # a layer that is ranked for itself has no more to give
            high = width
            continue
        if kept_weights(found) <= kept:
            low, best = width, found
        else:
            high, too_much = width, found
    if kept_weights(best) < (1 - FILLED_BY_SINGLES) * kept and too_much is not None:
        ways = spanning_weights(scores, too_much, selection.granularity)
        if kept_weights(ways) <= kept:
            cut = _fill(scores, ways, too_much, kept, selection.granularity)
            # On small images a way may still be lost: not every pixel leads to the next.
            best = max(best, measure_topology(model, cut, input_shape).effective, key=kept_weights)
    reachable = measure_topology(model, best, input_shape).reachable
    return _fill(scores, best, reachable, kept, selection.granularity)


def _fill(
    scores: Scores, masks: Masks, allowed: Masks, kept: int, granularity: Granularity
) -> Masks:
    """Return the masks with the best of what is allowed besides, up to `kept` weights."""
    others = {name: scores[name] * (allowed[name] & ~masks[name]) for name in scores}
    wanted = min(kept - kept_weights(masks), _usable(others))
    filled = _keep(others, {tuple(scores): wanted}, granularity)
    return {name: masks[name] | filled[name] for name in scores}


def spanning_weights(scores: Scores, effective: Masks, granularity: Granularity) -> Masks:
    """Return the best weight into and out of every node: together they keep all nodes on paths.

    `effective` are weights that all lie on paths; granularity `kernel` spares a whole kernel.
    """
    spared = {}
    for name, mask in effective.items():
        spared[name] = torch.zeros_like(mask)
        if mask.dim() < 2:
            continue
        for dimension in (0, 1):
            rows = mask.transpose(0, dimension).flatten(1)
            ranks = scores[name].transpose(0, dimension).flatten(1).masked_fill(~rows, -torch.inf)
            best = torch.zeros_like(rows).scatter_(1, ranks.argmax(1, keepdim=True), True) & rows
            spared[name] |= best.view(mask.transpose(0, dimension).shape).transpose(0, dimension)
        if granularity == "kernel" and mask.dim() > 2:
            kernels = spared[name].flatten(2).any(2)
            spared[name] = mask & kernels.view(*kernels.shape, *[1] * (mask.dim() - 2))
    return spared


def _usable(scores: Scores) -> int:
    return sum(int(torch.count_nonzero(score)) for score in scores.values())
