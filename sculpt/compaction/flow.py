"""Which channels are zero for ever, and which lie on a path to the output.

A channel is *zero* if no training step can make it anything else: every kept weight that leads
to it reads a zero channel, and no bias can move. Behind a batch norm that takes a derivative of
zero: the shift of a constant channel starts at 0 and stays there as long as what follows is a
ReLU, which passes no gradient at 0.

Gradients of channels that are not *read* are exactly zero.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from sculpt.compaction.graph import Step
from sculpt.diagnostics.layers import Masks


def analyse(steps: list[Step], masks: Masks) -> None:
    """Fill in which channels of the steps are zero and which are read.

    Args:
        steps:
            In order of execution; the last one is the network's output.
        masks:
            Keyed by parameter name; of bool tensors.
    """
    # All shifts are taken to stay at 0, until those that can move and all that depends on them
    # have been taken out: two shifts may well hold each other in place.
    still = {step: _starts_still(step.module) for step in steps if step.kind == "norm"}
    unsettled = True
    while unsettled:
        for step in steps:
            step.zero = _push_zero(step, masks, still)
        stops = _gradient_stops(steps)
        held = {step: shift & stops[step] for step, shift in still.items()}
        unsettled = any(bool((shift != held[step]).any()) for step, shift in still.items())
        still = held

    for step in reversed(steps):
        step.read = torch.zeros(step.width, dtype=torch.bool)
        if not step.users:
            step.read |= True
        for user in step.users:
            step.read |= _pull_read(step, user, masks)


def needed(step: Step) -> Tensor:
    """Return the channels that carry a signal to the output, (width,)."""
    return step.read & ~step.zero


def needed_columns(step: Step, masks: Masks, rows: Tensor) -> Tensor:
    """Return the inputs of a conv or linear layer that some rows need, (width of its input,)."""
    return connections(step, masks)[rows].any(0) & ~step.inputs[0].zero


def connections(step: Step, masks: Masks) -> Tensor:
    """Return which channels a conv or linear layer connects, (outputs, inputs)."""
    mask = masks[f"{step.name}.weight"].cpu()
    return mask.flatten(2).any(2) if mask.dim() > 2 else mask


def _starts_still(module: nn.Module | None) -> Tensor:
    """Return the channels of a batch norm that start by giving 0 for 0, (width,)."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    still = torch.ones(module.num_features, dtype=torch.bool)
    for offset in (module.running_mean, module.bias):
        if offset is not None:
            still &= (offset.detach() == 0).cpu()
    return still


def _push_zero(step: Step, masks: Masks, still: dict[Step, Tensor]) -> Tensor:
    """Return which outputs of a step are zero, from which of its inputs are."""
    if step.kind == "opaque":
        return torch.zeros(step.width, dtype=torch.bool)
    zero = step.inputs[0].zero
    if step.kind == "weighted":
        zero = ~(connections(step, masks) & ~zero).any(1)
        bias = masks.get(f"{step.name}.bias")
        return zero if bias is None else zero & ~bias.cpu()
    if step.kind == "norm":
        return zero & still[step]
    if step.kind == "add":
        return zero & step.inputs[-1].zero
    if step.kind == "pad":
        return torch.cat([zero, torch.ones(step.width - len(zero), dtype=torch.bool)])
    if step.kind == "flatten":
        return zero.repeat_interleave(step.repeats)
    return zero


def _gradient_stops(steps: list[Step]) -> dict[Step, Tensor]:
    """Return the channels whose gradient is zero as long as they are."""
    stops: dict[Step, Tensor] = {}
    for step in reversed(steps):
        stops[step] = torch.full((step.width,), bool(step.users))
        for user in step.users:
            if user.kind in ("pass", "add", "pad", "flatten"):
                stops[step] &= _pull(step, user, user.zero & stops[user], "all")
            elif user.kind != "relu":
                stops[step] &= False
    return stops


def _pull_read(step: Step, user: Step, masks: Masks) -> Tensor:
    """Return which outputs of a step one of its users reads, (width,)."""
    if user.kind == "opaque":
        return torch.ones(step.width, dtype=torch.bool)
    if user.kind == "weighted":
        return connections(user, masks)[needed(user)].any(0)
    return _pull(step, user, user.read, "any")


def _pull(step: Step, user: Step, channels: Tensor, how: Literal["any", "all"]) -> Tensor:
    """Return what holds of a step's channels if it holds of any, or all, that they become."""
    if user.kind == "pad":
        return channels[: step.width]
    if user.kind == "flatten":
        entries = channels.view(step.width, -1)
        return entries.any(1) if how == "any" else entries.all(1)
    return channels
