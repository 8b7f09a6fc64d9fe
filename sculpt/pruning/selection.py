"""From scores to masks: what is ranked against what, in which groups, and at which price."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import BudgetError, InputError, check_choice
from sculpt.pruning.channels import keep_highest_channels
from sculpt.pruning.kernels import keep_highest_kernels
from sculpt.pruning.layer_budgets import proportional_counts
from sculpt.pruning.masks import Masks, Scores, check_finite, keep_highest

Scope = Literal["global", "layer"]
Granularity = Literal["weight", "kernel", "channel"]

MOST_ROUNDS = 20
"""Of widening the ranking, before a budget is said to have fallen short."""


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

    @property
    def needs_shape(self) -> bool:
        """Whether the network must be traced, for which an input's shape has to be known."""
        return self.mac_exponent != 0 or self.effective or self.granularity == "channel"


def select_masks(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    kept: int,
    selection: Selection,
    input_shape: tuple[int, ...] | None,
) -> Masks:
    """Return the masks of the highest scores.

    Args:
        model:
            Whose prunable parameters are scored; not changed.
        scores:
            Higher = keep, keyed by parameter name.
        kept:
            How many weights and biases to keep. Met exactly, except by whole groups and by
            `effective` where too few weights lie on a path; then as many as possible are kept.
        selection:
            Scope, granularity, price, and whether ineffective weights are replaced.
        input_shape:
            Of one input, without its batch dimension.

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
    if selection.needs_shape and input_shape is None:
        raise InputError(
            "mac_exponent, effective and granularity 'channel' must know the shape of an input, "
            "but got none; give inputs= or input_shape=, for example input_shape=(3, 32, 32)"
        )
    priced = dict(scores)
    if selection.mac_exponent and input_shape is not None:
        priced = divide_by_positions(model, priced, selection.mac_exponent, input_shape)
    if selection.granularity == "channel" and input_shape is not None:
        return keep_highest_channels(model, priced, kept, input_shape)
    parts = partition(priced, kept, selection.scope)
    masks = _keep(priced, parts, selection.granularity)
    if selection.effective and input_shape is not None:
        return _spend_on_paths(model, priced, masks, kept, selection, input_shape)
    return masks


def divide_by_positions(
    model: nn.Module, scores: Scores, exponent: float, input_shape: tuple[int, ...]
) -> Scores:
    """Return scores per (H·W)^p: a weight used at many positions must earn its MACs."""
    positions = measure_cost(model, input_shape).positions
    return {
        name: score / positions[name.rpartition("bias")[0] + "weight"] ** exponent
        if name.endswith("bias")
        else score / positions[name] ** exponent
        for name, score in scores.items()
    }


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
    model: nn.Module,
    scores: Scores,
    masks: Masks,
    kept: int,
    selection: Selection,
    input_shape: tuple[int, ...],
) -> Masks:
    """Return masks of which every kept weight lies on a path, with as much of the budget spent.

    What lies on no path is dropped, and the best weights that would lie on one take its place:
    they join two nodes that are alive, so each is on a path whatever the others are. Only where
    there are too few such weights is the ranking widened, so that further nodes come alive.
    """
    total = sum(score.numel() for score in scores.values())
    best, width = {name: torch.zeros_like(mask) for name, mask in masks.items()}, kept
    for _ in range(MOST_ROUNDS):
        on_paths = measure_topology(model, masks, input_shape).effective
        # Once more: what was reached only by weights that led nowhere is reached no longer.
        topology = measure_topology(model, on_paths, input_shape)
        spent = _refill(scores, topology.effective, topology.reachable, kept, selection)
        # A widened ranking had to be cut to the budget, which may cut paths.
        spent = measure_topology(model, spent, input_shape).effective
        if _count(spent) > _count(best):
            best = spent
        usable = sum(int(torch.count_nonzero(score)) for score in scores.values())
        if _count(best) == kept or width >= min(total, usable):
            break
        width = min(total, usable, width + max(1, width // 4))
        masks = _keep(scores, partition(scores, width, selection.scope), selection.granularity)
    return best


def _refill(
    scores: Scores, effective: Masks, reachable: Masks, kept: int, selection: Selection
) -> Masks:
    """Return the effective weights, cut or filled up to the budget by the reachable ones."""
    filled: Masks = {}
    for names, count in partition(scores, kept, selection.scope).items():
        own = {name: effective[name] for name in names}
        missing = count - _count(own)
        # Where too many are effective the best of them, else the best of those that could be.
        allowed = own if missing < 0 else {n: reachable[n] & ~own[n] for n in names}
        candidates = {name: scores[name] * allowed[name] for name in names}
        usable = sum(int(torch.count_nonzero(score)) for score in candidates.values())
        wanted = min(count if missing < 0 else missing, usable)
        chosen = _keep(candidates, {names: wanted}, selection.granularity)
        filled |= chosen if missing < 0 else {name: own[name] | chosen[name] for name in names}
    return {name: filled[name] for name in scores}


def _count(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())
