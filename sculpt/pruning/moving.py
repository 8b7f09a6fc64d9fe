"""Masks that move while a network trains: dynamic sparse training.

A move drops the kept weights of least magnitude and grows as many others, so that a budget holds at
every step. RigL (Evci et al. 2020) grows where the gradient of the dense weight is largest, SET
(Mocanu et al. 2018) at random. Gradual magnitude pruning (Zhu and Gupta 2017) only drops, from a
dense network down to the budget: train-and-prune within one training.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import Masks, check_masks, kept_weights
from sculpt.errors import BudgetError, InputError, NumericsError, check_choice
from sculpt.pruning.layer_budgets import proportional_counts
from sculpt.pruning.mask_rule import Scope
from sculpt.pruning.masks import matching

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
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
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
        include, exclude: Patterns of parameter names, as of `prune`; others stay as they are.

    Returns:
        The number of weights that were grown, all of which were pruned before.

    Raises:
        InputError: an argument is not one of its values, the masks do not fit the model, or `rigl`
            finds no gradient.
        NumericsError: the gradients that `rigl` ranks are all zero, or some are not finite.
    """
    check_choice("rule", rule, get_args(Growth))
    check_choice("scope", scope, get_args(Scope))
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise InputError(f"fraction must be from 0 to 1, but got {fraction!r}")
    parameters, here = _movable(model, masks, include, exclude)
    if not parameters:
        return 0
    gradients: dict[str, Tensor] = {}
    if rule == "rigl":
        gradients = _gradients(parameters, here, optimizer)
    generator = torch.Generator().manual_seed(seed)
    grown = 0
    for names in [[name] for name in parameters] if scope == "layer" else [list(parameters)]:
        own = {name: parameters[name] for name in names}
        kept = _flat(here[name] for name in names)
        moving = min(int(fraction * int(kept.sum())), int((~kept).sum()))
        if not moving:
            continue
        magnitudes = _flat(weight.abs() for weight in own.values())
        staying = _highest(magnitudes, kept, int(kept.sum()) - moving)
        if rule == "rigl":
            ranks = _flat(gradients[name].abs() for name in names)
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
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> int:
    """Drop the kept weights of least magnitude down to a number, in place.

    Args:
        model, masks, optimizer: As of `move_masks`.
        kept: Weights to keep of all that train, have a mask and match (`kept_at` on the way).
        scope: `global` ranks the whole network, `layer` each parameter by itself, all at one
            density.
        include, exclude: As of `move_masks`.

    Returns:
        The number of weights that were dropped.

    Raises:
        BudgetError: `kept` is no whole number, more than the masks keep, or below 0.
        InputError: as `move_masks`.
    """
    check_choice("scope", scope, get_args(Scope))
    parameters, here = _movable(model, masks, include, exclude)
    before = kept_weights(here)
    if not isinstance(kept, Integral) or not 0 <= kept <= before:
        raise BudgetError(
            f"masks must shrink to a whole number of weights from 0 to the {before} they keep, but "
            f"got {kept!r}"
        )
    if not parameters:
        return 0
    counts: Mapping[tuple[str, ...], int] = {tuple(parameters): kept}
    if scope == "layer":
        sizes = {name: int(mask.sum()) for name, mask in here.items()}
        counts = {(name,): count for name, count in proportional_counts(sizes, kept).items()}
    for names, count in counts.items():
        own = {name: parameters[name] for name in names}
        magnitudes = _flat(weight.abs() for weight in own.values())
        staying = _highest(magnitudes, _flat(here[name] for name in names), count)
        _set_masks(own, masks, staying, optimizer)
    return before - kept


def moved_fraction(fraction: float, step: int, end: int) -> float:
    """Return the fraction to move at a step: it falls to 0 at the end by half a cosine (RigL)."""
    return fraction / 2 * (1 + math.cos(math.pi * _share(step, end)))


def kept_at(start: int, final: int, step: int, end: int) -> int:
    """Return the weights to keep at a step: from `start` to `final` by the cubic schedule.

    Zhu and Gupta 2017, Eq. 1: most are dropped early, when many are superfluous.
    """
    return final + round((start - final) * (1 - _share(step, end)) ** 3)


def _share(step: int, end: int) -> float:
    """Return the share of a schedule that has passed; all of one without steps."""
    return min(step, end) / end if end > 0 else 1.0


def _movable(
    model: nn.Module, masks: Masks, include: Sequence[str], exclude: Sequence[str]
) -> tuple[dict[str, Tensor], Masks]:
    """Find the parameters that train, have a mask and match; and their masks where they are."""
    here, parameters = check_masks(model, masks), material_weights(model)
    trainable = [name for name in masks if parameters[name].requires_grad]
    matched = matching(trainable, include, exclude) if trainable else []
    return {n: parameters[n] for n in matched}, {n: here[n] for n in matched}


def _gradients(
    parameters: Mapping[str, Tensor], masks: Masks, optimizer: Optimizer | None
) -> dict[str, Tensor]:
    """Return the gradients of the last backward pass; 0 where a mask that keeps all has none."""
    mend = "move masks before optimizer.zero_grad(), or use rule='set'"
    found = {}
    for name, weight in parameters.items():
        if weight.grad is None and not masks[name].all():
            raise InputError(
                f"rigl must find the gradients of the last backward pass, but {name} has none; "
                + mend
            )
        found[name] = torch.zeros_like(weight) if weight.grad is None else weight.grad
    for name, weight in parameters.items():
        if weight.grad is not None and (added := _added_by_nesterov(weight, optimizer)) is not None:
            found[name] = weight.grad - added
    if faulty := [name for name, gradient in found.items() if not gradient.isfinite().all()]:
        raise NumericsError(
            f"gradients must be finite for rigl to rank them, but some of {faulty[0]} are not; "
            "leave this move out"
        )
    if found and not any(gradient.any() for gradient in found.values()):
        raise NumericsError(
            f"rigl must find the gradients of the last backward pass, but all are zero; {mend}"
        )
    return found


def _added_by_nesterov(weight: Tensor, optimizer: Optimizer | None) -> Tensor | None:
    """Return what a step of SGD has added to a gradient where it is kept; None without that.

    `torch.optim.SGD` with Nesterov's momentum adds its momentum in place where it steps many
    parameters at once (`foreach`, the default on CUDA), unless weight decay or `maximize` make a
    copy first.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return None
    for group in optimizer.param_groups:
        if any(weight is parameter for parameter in group["params"]):
            at_once = group["foreach"]
            if at_once is None:
                at_once = not group["fused"] and weight.is_cuda
            copied = group["weight_decay"] or group["maximize"] or group["fused"]
            held = optimizer.state.get(weight, {}).get("momentum_buffer")
            if group["nesterov"] and at_once and not copied and held is not None:
                return held * group["momentum"]
    return None


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
