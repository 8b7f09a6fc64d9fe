"""Exact removal of the channels of a program that no path uses, constants included.

A channel is *alive* if it depends on the image, else it is a constant (zero, most often), and it is
*read* if the logits depend on it. What is not both goes; what a constant adds to a layer behind it
becomes part of that layer's bias. Channels are removed from a whole stream at once: additions make
one unit of a channel in all the places where it appears, so that nothing has to be gathered.

Zeros around an image keep a constant from being constant behind a convolution that pads. Such
constants stay, but of those that only convolutions read one is enough: the others are multiples.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sculpt.export.evaluation import activation
from sculpt.export.program import (
    Activation,
    Add,
    Affine,
    Array,
    Channels,
    Conv,
    Flatten,
    Input,
    Linear,
    Operation,
    Pool,
    Program,
    sources,
)

Mask = NDArray[np.bool_]


@dataclass
class Flow:
    """What is known of the channels of one operation's result."""

    alive: Mask
    """(channels,): depends on the image."""
    constant: Array
    """(channels,): the value of what is not alive, in every place; 0 of what is."""
    read: Mask
    """(channels,): the logits depend on it."""


def condense(program: Program) -> Program:
    """Return a program of the same function with fewer channels, and the same operations.

    Exact up to rounding in float64 (sums are taken in another order); `certify` checks it.
    """
    program = _merge_constants(program)
    flows = analyse(program)
    kept = _kept(program, flows)
    return Program(
        tuple(
            _narrowed(operation, place, flows, kept)
            for place, operation in enumerate(program.operations)
        )
    )


def analyse(program: Program) -> list[Flow]:
    """Return what is known of the channels of each operation."""
    flows: list[Flow] = []
    for operation in program.operations:
        alive, constant = _forward(operation, [flows[s] for s in sources(operation)])
        flows.append(Flow(alive, np.where(alive, 0.0, constant), np.zeros_like(alive)))
    flows[-1].read |= True
    for place in reversed(range(len(flows))):
        operation = program.operations[place]
        for source in sources(operation):
            flows[source].read |= _reads(operation, flows[place], flows[source])
    return flows


def _forward(operation: Operation, given: list[Flow]) -> tuple[Mask, Array]:
    """Return which channels are alive, and the constants of those that are not."""
    match operation:
        case Input(shape=shape):
            return np.ones(shape[0], dtype=np.bool_), np.zeros(shape[0])
        case Conv() | Linear():
            source = given[0]
            alive = np.asarray(_connections(operation)[:, _varying(operation, source)].any(axis=1))
            taps = operation.weight.reshape(*operation.weight.shape[:2], -1).sum(axis=2)
            return alive, operation.bias + taps @ source.constant
        case Affine(scale=scale, shift=shift):
            return given[0].alive & scale.astype(np.bool_), given[0].constant * scale + shift
        case Activation():
            constant = activation(operation)(torch.from_numpy(given[0].constant)).numpy()
            return given[0].alive, constant
        case Add():
            one, other = given
            return one.alive | other.alive, one.constant + other.constant
        case Pool(function=function, padding=padding):
            varies = given[0].constant != 0
            lost = function == "average" and any(padding)
            return given[0].alive | varies if lost else given[0].alive, given[0].constant
        case Channels(taken=taken):
            present = taken >= 0
            return present & given[0].alive[taken], np.where(present, given[0].constant[taken], 0.0)
        case Flatten(shape=shape):
            repeats = shape[0] // len(given[0].alive)
            return given[0].alive.repeat(repeats), given[0].constant.repeat(repeats)


def _reads(operation: Operation, own: Flow, source: Flow) -> Mask:
    """Return which channels of one of its sources an operation needs for what is read of it."""
    wanted = own.read & own.alive
    match operation:
        case Conv() | Linear():
            return np.asarray(_connections(operation)[wanted].any(axis=0))
        case Channels(taken=taken):
            found = np.zeros_like(source.read)
            found[taken[wanted & (taken >= 0)]] = True
            return found
        case Flatten():
            return np.asarray(wanted.reshape(len(source.read), -1).any(axis=1))
    return wanted


def _kept(program: Program, flows: list[Flow]) -> list[Mask]:
    """Return which channels of each operation stay: those of every unit that is needed anywhere."""
    units = _units(program)
    needed = np.zeros(1 + max(int(found.max()) for found in units), dtype=np.bool_)
    users = program.users()
    for place, flow in enumerate(flows):
        needed[units[place][flow.read & flow.alive]] = True
        # A constant that is added to what is alive, or that padding cuts off, has to be there.
        for user in (program.operations[user] for user in users[place]):
            if not _takes_up_constants(user):
                present = flow.read & (flow.constant != 0)
                needed[units[place][present]] = True
    needed[units[0]] = True  # images have all their channels
    needed[units[-1]] = True  # and all classes have a logit
    for found in units:
        if not needed[found].any():
            needed[found[0]] = True  # nothing has no channels at all
    return [needed[found] for found in units]


def _takes_up_constants(user: Operation) -> bool:
    """Return whether an operation can do without its constant inputs: by its bias."""
    return isinstance(user, Linear) or (isinstance(user, Conv) and not _pads(user))


def _units(program: Program) -> list[NDArray[np.int64]]:
    """Return the unit of each channel of each operation: one number in all places it appears in."""
    leader: list[int] = []

    def new(count: int) -> NDArray[np.int64]:
        leader.extend(range(len(leader), len(leader) + count))
        return np.arange(len(leader) - count, len(leader))

    def find(unit: int) -> int:
        while leader[unit] != unit:
            leader[unit] = leader[leader[unit]]
            unit = leader[unit]
        return unit

    units: list[NDArray[np.int64]] = []
    for operation in program.operations:
        given = [units[source] for source in sources(operation)]
        match operation:
            case Input() | Conv() | Linear():
                units.append(new(operation.shape[0]))
            case Add():
                for one, other in zip(*given, strict=True):
                    leader[find(int(other))] = find(int(one))
                units.append(given[0])
            case Channels(taken=taken):
                fresh = new(len(taken))
                units.append(np.where(taken >= 0, given[0][taken], fresh))
            case Flatten(shape=shape):
                units.append(given[0].repeat(shape[0] // len(given[0])))
            case _:
                units.append(given[0])
    return [np.array([find(int(unit)) for unit in found], dtype=np.int64) for found in units]


def _narrowed(operation: Operation, place: int, flows: list[Flow], kept: list[Mask]) -> Operation:
    """Return an operation with the channels that stay, of itself and of what it reads."""
    rows = kept[place]
    shape = (int(rows.sum()), *operation.shape[1:])
    match operation:
        case Conv() | Linear():
            source, own = flows[operation.source], flows[place]
            varies = _varying(operation, source)
            # Only weights on a path stay, whatever else has to keep its place for others.
            used = np.multiply.outer(own.read & own.alive, varies)
            weight = operation.weight * used.reshape(*used.shape, *[1] * (len(shape) - 1))
            taps = operation.weight.reshape(*used.shape, -1).sum(axis=2)
            bias = operation.bias + taps @ np.where(varies, 0.0, source.constant)
            bias = np.where(own.alive, bias * own.read, own.constant)
            weight = np.ascontiguousarray(weight[rows][:, kept[operation.source]])
            return replace(operation, shape=shape, weight=weight, bias=bias[rows])
        case Affine(scale=scale, shift=shift):
            return replace(operation, shape=shape, scale=scale[rows], shift=shift[rows])
        case Channels(taken=taken):
            numbers = kept[operation.source].cumsum() - 1
            return replace(
                operation, shape=shape, taken=np.where(taken >= 0, numbers[taken], -1)[rows]
            )
    return replace(operation, shape=shape)


def _merge_constants(program: Program) -> Program:
    """Return a program in which of the constants that only convolutions read one does for all."""
    flows, users, units = analyse(program), program.users(), _units(program)
    operations: list[Any] = list(program.operations)
    # Of what is added, a constant is needed in every place.
    sums = [units[place] for place, found in enumerate(operations) if isinstance(found, Add)]
    added = np.concatenate([*sums, np.empty(0, np.int64)])
    for place, flow in enumerate(flows):
        readers = [operations[user] for user in users[place]]
        constants = np.flatnonzero(~flow.alive & flow.read & (flow.constant != 0))
        if len(constants) < 2 or not all(isinstance(reader, Conv) for reader in readers):
            continue
        if np.isin(units[place][constants], added).any():
            continue
        largest = constants[np.abs(flow.constant[constants]).argmax()]
        others = constants[constants != largest]
        factors = flow.constant[others] / flow.constant[largest]
        for user in users[place]:
            weight = operations[user].weight.copy()
            weight[:, largest] += np.tensordot(weight[:, others], factors, axes=(1, 0))
            weight[:, others] = 0.0
            operations[user] = replace(operations[user], weight=weight)
    return Program(tuple(operations))


def _connections(layer: Conv | Linear) -> Mask:
    """Return which channels a layer connects, (outputs, inputs)."""
    return (layer.weight != 0).reshape(*layer.weight.shape[:2], -1).any(axis=2)


def _varying(layer: Conv | Linear, source: Flow) -> Mask:
    """Return the inputs of a layer that are not one constant wherever its kernel looks."""
    # Zeros around the image make two values of a constant.
    return source.alive | (source.constant != 0) if _pads(layer) else source.alive


def _pads(layer: Conv | Linear) -> bool:
    return isinstance(layer, Conv) and any(layer.padding)
