"""Channels through a network: units that are one channel, and liveness on paths to the output."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Link:
    """How the channels of an operation's result depend on those of its sources.

    A layer connects channels, most other operations carry each one on; with neither, nothing is
    known, or there is no source.
    """

    width: int
    sources: tuple[int, ...] = ()
    """Positions of the operations whose results it takes."""
    connections: Mask | None = None
    """(width, width of the source), for a layer: where weights are kept."""
    carried: tuple[Numbers, ...] | None = None
    """(width,) for each source: the channel of it that each channel is, or -1 for none."""
    product: bool = False
    """Whether the channels of several sources are multiplied: zero where one of them is."""


@dataclass(frozen=True, eq=False)
class Liveness:
    """Channels of one operation's result that carry a signal, and that reach the output."""

    alive: Mask
    """(channels,): may carry a signal."""
    read: Mask
    """(channels,): taken by a channel that is alive, and read itself."""

    @property
    def on_path(self) -> Mask:
        """(channels,): carries a signal to the output."""
        return self.alive & self.read


@dataclass(frozen=True, eq=False)
class Tie:
    """Channels of one operation's result that stay or go with those of another's, one each."""

    place: int
    channels: Numbers
    other: int
    """Position of the other operation, which may be the same."""
    others: Numbers


def find_units(links: list[Link], ties: Sequence[Tie] = ()) -> list[Numbers]:
    """Number the unit of each channel of each operation, (channels,), from 0.

    A unit is one channel in all the places where it appears: batch norms, activations and pools
    hand it on, an addition or a product makes two units one, and so does a tie. So it can be
    removed only everywhere at once.
    """
    starts = np.cumsum([0, *(link.width for link in links)])
    same = [np.empty((2, 0), np.int64)]  # pairs of places that hold one channel
    for tie in ties:
        same.append(np.stack([starts[tie.place] + tie.channels, starts[tie.other] + tie.others]))
    for start, link in zip(starts, links, strict=False):
        for source, carried in zip(link.sources, link.carried or (), strict=False):
            to = np.flatnonzero(carried >= 0)
            same.append(np.stack([start + to, starts[source] + carried[to]]))
    pairs = np.concatenate(same, axis=1)
    places = int(starts[-1])
    _, units = connected_components(
        coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(places, places)),
        directed=False,
    )
    return np.split(units.astype(np.int64), starts[1:-1])


def push(link: Link, given: list[Mask]) -> Mask:
    """Propagate signals from each of an operation's sources to its result, (width,)."""
    if link.connections is not None:
        return np.asarray((link.connections & given[0]).any(axis=1))
    if link.carried is None:
        return np.ones(link.width, np.bool_)
    arriving = [
        (carried >= 0) & channels[carried]
        for carried, channels in zip(link.carried, given, strict=True)
    ]
    return np.asarray((np.all if link.product else np.any)(arriving, axis=0))


def pull(link: Link, wanted: Mask, source: int, width: int) -> Mask:
    """Propagate wanted channels of a result, (width,), back to one of its sources.

    Args:
        link, wanted: Of the result.
        source: Position of the operation; all that it gives to the result counts.
        width: Channels of the source.
    """
    if link.connections is not None:
        return np.asarray(link.connections[wanted].any(axis=0))
    if link.carried is None:
        return np.ones(width, np.bool_)
    found = np.zeros(width, np.bool_)
    for place, carried in zip(link.sources, link.carried, strict=True):
        if place == source:
            found[carried[wanted & (carried >= 0)]] = True
    return found


def find_paths(links: list[Link], alive: list[Mask], ends: set[int]) -> list[Liveness]:
    """Find the channels on a path to the output, for operations in order of execution.

    Args:
        links, alive: Of each operation.
        ends: Positions of the results that are read from outside.
    """
    found = [Liveness(mask, np.full(len(mask), place in ends)) for place, mask in enumerate(alive)]
    for link, live in zip(reversed(links), reversed(found), strict=True):
        for source in link.sources:
            read = found[source].read
            read |= pull(link, live.on_path, source, len(read))
    return found
