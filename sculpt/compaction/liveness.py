"""Channels that stay zero throughout training, and channels on a path to the output.

A channel is zero, and so not *alive*, if no training step can make it anything else: every kept
weight that leads to it reads a zero channel, and no bias can move. Behind a batch norm that needs
a derivative of zero: the shift of a constant channel starts at 0 and stays there if a ReLU
follows, which passes no gradient at 0.

Gradients of channels that are not on a path are exactly zero.
"""

import numpy as np
from torch import nn

from sculpt.compaction.calls import Call
from sculpt.diagnostics.layers import Masks
from sculpt.graph.channels import Liveness, Mask, find_paths, pull, push


def find_liveness(calls: list[Call], masks: Masks) -> list[Liveness]:
    """Find the channels of each call's result that are alive, and those that are read."""
    links = [call.link for call in calls]
    # All shifts are assumed to stay at 0, until those that can move and all that depend on them
    # have been found: two shifts may well hold each other in place.
    moving, unsettled = [_starts_moving(call, masks) for call in calls], True
    while unsettled:
        alive: list[Mask] = []
        for call, link, own in zip(calls, links, moving, strict=True):
            given = push(link, [alive[source] for source in link.sources])
            alive.append(own | (given if call.there is None else given & call.there))
        stops = _gradient_stops(calls, alive)
        moved = [
            own | ~stop if call.kind == "norm" else own
            for call, own, stop in zip(calls, moving, stops, strict=True)
        ]
        unsettled = any(bool((old != new).any()) for old, new in zip(moving, moved, strict=True))
        moving = moved
    return find_paths(links, alive, _ends(calls))


def _ends(calls: list[Call]) -> set[int]:
    """Positions of the output, and of results that nothing takes, which do not train at all."""
    return set(range(len(calls))).difference(*(call.link.sources for call in calls))


def _starts_moving(call: Call, masks: Masks) -> Mask:
    """Channels that a bias, the state of a batch norm or a function moves away from 0, (width,)."""
    moving = np.full(call.link.width, call.kind == "shift")
    if isinstance(call.module, nn.modules.batchnorm._BatchNorm) and call.kind == "norm":
        for offset in (call.module.running_mean, call.module.bias):
            if offset is not None:
                moving |= (offset.detach() != 0).cpu().numpy()
    elif call.kind == "weighted" and f"{call.name}.bias" in masks:
        moving |= masks[f"{call.name}.bias"].cpu().numpy()
    return moving


def _gradient_stops(calls: list[Call], alive: list[Mask]) -> list[Mask]:
    """Channels whose gradient is zero as long as they are."""
    ends = _ends(calls)
    stops = [np.full(len(mask), place not in ends) for place, mask in enumerate(alive)]
    for place, call in reversed(list(enumerate(calls))):
        for source in call.link.sources:
            if call.kind in ("pass", "pad"):
                passed = alive[place] | ~stops[place]
                stops[source] &= ~pull(call.link, passed, source, len(stops[source]))
            elif call.kind != "relu":
                stops[source] &= False
    return stops
