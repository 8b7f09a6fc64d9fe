"""Which channels are zero for ever, and which lie on a path to the output.

A channel is zero, and so not *alive*, if no training step can make it anything else: every kept
weight that leads to it reads a zero channel, and no bias can move. Behind a batch norm that takes
a derivative of zero: the shift of a constant channel starts at 0 and stays there as long as what
follows is a ReLU, which passes no gradient at 0.

Gradients of channels that are not on a path are exactly zero.
"""

import numpy as np
from torch import nn

from sculpt.compaction.steps import Step
from sculpt.diagnostics.layers import Masks
from sculpt.graph.channels import Flow, Mask, find_paths, pull, push


def analyse(steps: list[Step], masks: Masks) -> list[Flow]:
    """Return which channels of each step are alive and which are read.

    Args:
        steps: In order of execution; the last one is the network's output.
        masks: Keyed by parameter name; of bool tensors.
    """
    links = [step.link for step in steps]
    # All shifts are taken to stay at 0, until those that can move and all that depends on them
    # have been taken out: two shifts may well hold each other in place.
    moving, unsettled = [_starts_moving(step, masks) for step in steps], True
    while unsettled:
        alive: list[Mask] = []
        for link, own in zip(links, moving, strict=True):
            alive.append(own | push(link, [alive[source] for source in link.sources]))
        stops = _gradient_stops(steps, alive)
        moved = [
            own | ~stop if step.kind == "norm" else own
            for step, own, stop in zip(steps, moving, stops, strict=True)
        ]
        unsettled = any(bool((old != new).any()) for old, new in zip(moving, moved, strict=True))
        moving = moved
    return find_paths(links, alive, _ends(steps))


def _ends(steps: list[Step]) -> set[int]:
    """Return the positions of the output, and of what nothing takes: it does not train at all."""
    return set(range(len(steps))).difference(*(step.link.sources for step in steps))


def _starts_moving(step: Step, masks: Masks) -> Mask:
    """Return the channels that something in a layer or batch norm moves from 0, (width,)."""
    moving = np.zeros(step.link.width, np.bool_)
    if isinstance(step.module, nn.BatchNorm1d | nn.BatchNorm2d) and step.kind == "norm":
        for offset in (step.module.running_mean, step.module.bias):
            if offset is not None:
                moving |= (offset.detach() != 0).cpu().numpy()
    elif step.kind == "weighted" and f"{step.name}.bias" in masks:
        moving |= masks[f"{step.name}.bias"].cpu().numpy()
    return moving


def _gradient_stops(steps: list[Step], alive: list[Mask]) -> list[Mask]:
    """Return the channels whose gradient is zero as long as they are."""
    ends = _ends(steps)
    stops = [np.full(len(mask), place not in ends) for place, mask in enumerate(alive)]
    for place, step in reversed(list(enumerate(steps))):
        for source in step.link.sources:
            if step.kind in ("pass", "add", "pad", "flatten"):
                passed = alive[place] | ~stops[place]
                stops[source] &= ~pull(step.link, passed, len(stops[source]))
            elif step.kind != "relu":
                stops[source] &= False
    return stops
