"""Masks that move while a network trains: dynamic sparse training.

A move drops the kept weights of least magnitude and grows as many others, so that a budget holds at
every step. RigL (Evci et al. 2020) grows where the gradient of the dense weight is largest, SET
(Mocanu et al. 2018) at random. Gradual magnitude pruning (Zhu and Gupta 2017) only drops, from a
dense network down to the budget: train-and-prune within one training.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import Masks, check_masks, kept_weights
from sculpt.errors import BudgetError, InputError, check_choice
from sculpt.pruning.layer_budgets import proportional_counts
from sculpt.pruning.mask_rule import Scope

Growth = Literal["rigl", "set"]


@torch.no_grad()
def move_masks(
    model: nn.Module,
    masks: Masks,
    optimizer: Optimizer | None = None,
    *,
    rule: Growth = "rigl",
    fraction: float = 0.3,
    scope: Scope = "layer",
    seed: int = 0,
) -> int:
    """Move a fraction of the kept weights of a network in training, in place.

    The kept weights of least magnitude are dropped, and as many are grown among all that are then
    not kept; one that is grown right back stays as it was. Dropped weights become zero, grown ones
    start from zero, and so does what the optimiser remembers of either (momentum).

    Call it after `optimizer.step()` and before `optimizer.zero_grad()`, every hundred steps or so,
    with a fraction that falls (`moved_fraction`). Masks that `attach_masks` has attached move
    along.

    Args:
        model: The masked network; its weights are changed.
        masks: Bool, True = kept, keyed by parameter name; changed, each keeping its storage.
            Parameters that do not train, or have no mask, stay as they are.
        optimizer: Its memory of the moved weights is set to zero; None where it has none.
        rule: `rigl`: grow where the gradient is largest. The gradients must be those of the last
            backward pass, which reach pruned weights, too. `set`: grow at random.
        fraction: Of the kept weights, from 0 to 1; less where fewer are pruned.
        scope: `layer`: each parameter keeps its number of weights. `global`: magnitudes and
            gradients are compared across the network, whose number of weights stays.
        seed: Draws what `set` grows; give another one for each move.

    Returns:
        The number of weights that were grown, all of which were pruned before.

    Raises:
        InputError: an argument is not one of its values, the masks do not fit the model, or `rigl`
            finds no gradient.
    """
    check_choice("rule", rule, get_args(Growth))
    check_choice("scope", scope, get_args(Scope))
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction must be from 0 to 1, but got {fraction}")
    parameters = _movable(model, masks)
    if rule == "rigl" and (without := [n for n, p in parameters.items() if p.grad is None]):
        raise InputError(
            "rigl must find the gradients of the last backward pass, but "
            f"{without[0]} has none; move masks before optimizer.zero_grad(), or use rule='set'"
        )
    generator = torch.Generator().manual_seed(seed)
    grown = 0
    for names in [[name] for name in parameters] if scope == "layer" else [list(parameters)]:
        own = {name: parameters[name] for name in names}
        kept = _flat(masks[name] for name in names)
        moving = min(int(fraction * int(kept.sum())), int((~kept).sum()))
        if not moving:
            continue
        magnitudes = _flat(weight.abs() for weight in own.values())
        staying = _highest(magnitudes, kept, int(kept.sum()) - moving)
        if rule == "rigl":
            ranks = _flat(_gradient(weight).abs() for weight in own.values())
        else:
            ranks = torch.rand(kept.numel(), generator=generator, device="cpu").to(kept.device)
        grown_now = _highest(ranks, ~staying, moving)
        grown += int((grown_now & ~kept).sum())
        _set_masks(own, masks, staying | grown_now, optimizer)
    return grown


@torch.no_grad()
def shrink_masks(
    model: nn.Module,
    masks: Masks,
    optimizer: Optimizer | None = None,
    *,
    kept: int,
    scope: Scope = "global",
) -> int:
    """Drop the kept weights of least magnitude down to a number, in place.

    Args:
        model, masks, optimizer: As of `move_masks`.
        kept: Weights to keep of all that train and have a mask (`kept_at` on the way).
        scope: `global` ranks the whole network, `layer` each parameter by itself, all at one
            density.

    Returns:
        The number of weights that were dropped.

    Raises:
        BudgetError: `kept` is more than the masks keep, or below 0.
        InputError: as `move_masks`.
    """
    check_choice("scope", scope, get_args(Scope))
    parameters = _movable(model, masks)
    before = kept_weights({name: masks[name] for name in parameters})
    if not 0 <= kept <= before:
        raise BudgetError(
            f"masks must shrink to a number of weights from 0 to the {before} they keep, but got "
            f"{kept}"
        )
    counts: Mapping[tuple[str, ...], int] = {tuple(parameters): kept}
    if scope == "layer":
        sizes = {name: int(masks[name].sum()) for name in parameters}
        counts = {(name,): count for name, count in proportional_counts(sizes, kept).items()}
    for names, count in counts.items():
        own = {name: parameters[name] for name in names}
        magnitudes = _flat(weight.abs() for weight in own.values())
        staying = _highest(magnitudes, _flat(masks[name] for name in names), count)
        _set_masks(own, masks, staying, optimizer)
    return before - kept


def moved_fraction(fraction: float, step: int, end: int) -> float:
    """Return the fraction to move at a step: it falls to 0 at the end by half a cosine (RigL)."""
    return fraction / 2 * (1 + math.cos(math.pi * min(step, end) / end))


def kept_at(start: int, final: int, step: int, end: int) -> int:
    """Return the weights to keep at a step: from `start` to `final` by the cubic schedule.

    Zhu and Gupta 2017, Eq. 1: most are dropped early, when many are superfluous.
    """
    return final + round((start - final) * (1 - min(step, end) / end) ** 3)


def _movable(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Find the parameters that train and have a mask."""
    check_masks(model, masks)
    parameters = material_weights(model)
    return {name: parameters[name] for name in masks if parameters[name].requires_grad}


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _highest(ranks: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Choose the highest of those allowed, ties by position; bool (n,)."""
    order = ranks.masked_fill(~allowed, -math.inf).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(allowed)
    chosen[order[:count]] = True
    return chosen


def _set_masks(
    parameters: Mapping[str, Tensor], masks: Masks, kept: Tensor, optimizer: Optimizer | None
) -> None:
    """Write new masks; what they drop or grow becomes zero, in the optimiser's memory, too."""
    parts = kept.split([weight.numel() for weight in parameters.values()])
    for (name, weight), part in zip(parameters.items(), parts, strict=True):
        new = part.view(weight.shape)
        unmoved = new & masks[name].to(new.device)
        masks[name].copy_(new)
        weight.mul_(unmoved)
        for held in (optimizer.state.get(weight, {}) if optimizer else {}).values():
            if isinstance(held, Tensor) and held.shape == weight.shape:
                held.mul_(unmoved)
