"""Channels on their way through a network: which are one, and which lie on a path to the output."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Link:
    """How the channels of an operation's result come from those of what it takes.

    A layer connects channels, most other operations carry each one on; with neither, nothing is
    known, or there is nothing that it takes.
    """

    width: int
    sources: tuple[int, ...] = ()
    """Positions of the operations whose results it takes."""
    connections: Mask | None = None
    """(width, width of the source): of a layer, where weights are kept."""
    carried: Numbers | None = None
    """(width,): of each channel the one that it is of every source, or -1 for zeros."""


@dataclass(frozen=True, eq=False)
class Flow:
    """What is known of the channels of one operation's result."""

    alive: Mask
    """(channels,): there may be a signal in it."""
    read: Mask
    """(channels,): something that is alive, and read itself, takes it."""

    @property
    def on_path(self) -> Mask:
        """Which carry a signal to the output, (channels,)."""
        return self.alive & self.read


def find_units(links: list[Link]) -> list[Numbers]:
    """Return the unit of each channel of each operation, (channels,): numbers from 0.

    A unit is one channel in all the places where it appears: batch norms, activations and pools
    hand it on, an addition makes two units one. So it can be removed only everywhere at once.
    """
    starts = np.cumsum([0, *(link.width for link in links)])
    same = [np.empty((2, 0), np.int64)]  # pairs of places that hold one channel
    for start, link in zip(starts, links, strict=False):
        if link.carried is not None:
            to = np.flatnonzero(link.carried >= 0)
            same += [np.stack([start + to, starts[s] + link.carried[to]]) for s in link.sources]
    pairs = np.concatenate(same, axis=1)
    places = int(starts[-1])
    _, units = connected_components(
        coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(places, places)),
        directed=False,
    )
    return np.split(units.astype(np.int64), starts[1:-1])


def push(link: Link, given: list[Mask]) -> Mask:
    """Return where there is a signal in a result, (width,), given where in each of its sources."""
    if link.connections is not None:
        return np.asarray((link.connections & given[0]).any(axis=1))
    if link.carried is None:
        return np.ones(link.width, np.bool_)
    there = link.carried >= 0
    return np.asarray(np.any([there & channels[link.carried] for channels in given], axis=0))


def pull(link: Link, wanted: Mask, width: int) -> Mask:
    """Return which channels of a source, (its width,), become any that are wanted, (width,)."""
    if link.connections is not None:
        return np.asarray(link.connections[wanted].any(axis=0))
    if link.carried is None:
        return np.ones(width, np.bool_)
    found = np.zeros(width, np.bool_)
    found[link.carried[wanted & (link.carried >= 0)]] = True
    return found


def find_paths(links: list[Link], alive: list[Mask], ends: set[int]) -> list[Flow]:
    """Return what is known of the channels of all operations.

    Args:
        links: In order of execution.
        alive: Of each, (width,).
        ends: Positions of those whose results are read from outside.
    """
    flows = [Flow(mask, np.full(len(mask), place in ends)) for place, mask in enumerate(alive)]
    for link, flow in zip(reversed(links), reversed(flows), strict=True):
        for source in link.sources:
            read = flows[source].read
            read |= pull(link, flow.on_path, len(read))
    return flows
