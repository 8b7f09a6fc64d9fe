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

from sculpt.export import program as ops
from sculpt.export.evaluation import activation
from sculpt.export.program import Array, Program
from sculpt.graph.channels import Flow, Link, Mask, Numbers, find_paths, find_units, push


@dataclass(frozen=True, eq=False)
class Values(Flow):
    """What is known of the channels of one operation's result, constants included."""

    constant: Array
    """(channels,): the value of what is not alive, in every place; 0 of what is."""


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


def analyse(program: Program) -> list[Values]:
    """Return what is known of the channels of each operation."""
    links, alive, constants = program.links, list[Mask](), list[Array]()
    for operation, link in zip(program.operations, links, strict=True):
        given = [alive[source] for source in link.sources]
        known = [constants[source] for source in link.sources]
        match operation:
            case ops.Layer():
                own = push(link, [_varying(operation, given[0], known[0])])
            case ops.Affine(scale=scale):
                own = push(link, given) & scale.astype(np.bool_)
            case ops.Pool(function="average", padding=padding) if any(padding):
                own = given[0] | (known[0] != 0)
            case _:
                own = push(link, given)
        alive.append(own)
        constants.append(np.where(own, 0.0, _constant(operation, link, known)))
    paths = find_paths(links, alive, {len(links) - 1})
    return [
        Values(flow.alive, flow.read, constant)
        for flow, constant in zip(paths, constants, strict=True)
    ]


def _constant(operation: ops.Operation, link: Link, given: list[Array]) -> Array:
    """Return what a result is, (channels,), where what it is computed from is constant."""
    match operation:
        case ops.Layer():
            return operation.bias + _taps(operation) @ given[0]
        case ops.Affine(scale=scale, shift=shift):
            return given[0] * scale + shift
        case ops.Activation():
            return activation(operation)(torch.from_numpy(given[0])).numpy()
    if link.carried is None:
        return np.zeros(link.width)
    there = link.carried >= 0
    return np.sum([np.where(there, values[link.carried], 0.0) for values in given], axis=0)


def _kept(program: Program, flows: list[Values]) -> list[Mask]:
    """Return which channels of each operation stay: those of every unit that is needed anywhere."""
    units = find_units(program.links)
    needed = np.zeros(1 + max(int(found.max()) for found in units), dtype=np.bool_)
    users = program.users()
    for place, flow in enumerate(flows):
        needed[units[place][flow.on_path]] = True
        # A constant that is added to what is alive, or that padding cuts off, has to be there.
        for user in (program.operations[user] for user in users[place]):
            if not _takes_up_constants(user):
                needed[units[place][flow.read & (flow.constant != 0)]] = True
    needed[units[0]] = True  # images have all their channels
    needed[units[-1]] = True  # and all classes have a logit
    for found in units:
        if not needed[found].any():
            needed[found[0]] = True  # nothing has no channels at all
    _complete_groups(program, units, needed)
    return [needed[found] for found in units]


def _complete_groups(program: Program, units: list[Numbers], needed: Mask) -> None:
    """Keep what is not needed of a group, too, where its convolution would grow without it.

    Weights between groups have to be there once other channels stay of one group than of another.
    """
    settled = False
    while not settled:
        settled = True
        for place, layer in enumerate(program.operations):
            if not isinstance(layer, ops.Conv):
                continue
            sides = [units[at].reshape(layer.groups, -1) for at in (place, layer.source)]
            whole = needed[sides[0]].any(axis=1) | needed[sides[1]].any(axis=1)
            rows, columns = needed[units[place]], needed[units[layer.source]]
            dense = rows.sum() * columns.sum() / _groups(layer, rows, columns)
            if dense > whole.sum() * sides[0].shape[1] * sides[1].shape[1]:
                for side in sides:
                    needed[side[whole]] = True
                settled = False


def _groups(layer: ops.Conv, rows: Mask, columns: Mask) -> int:
    """Return into how many equal groups what stays of a convolution falls; 1 if into none."""
    sides = [side.reshape(layer.groups, -1).sum(axis=1) for side in (rows, columns)]
    kept = [(row, column) for row, column in zip(*sides, strict=True) if row or column]
    return len(kept) if len(set(kept)) == 1 else 1


def _takes_up_constants(user: ops.Operation) -> bool:
    """Return whether an operation can do without its constant inputs: by its bias."""
    return isinstance(user, ops.Linear) or (isinstance(user, ops.Conv) and not _pads(user))


def _narrowed(
    operation: ops.Operation, place: int, flows: list[Values], kept: list[Mask]
) -> ops.Operation:
    """Return an operation with the channels that stay, of itself and of what it reads."""
    rows = kept[place]
    shape = (int(rows.sum()), *operation.shape[1:])
    match operation:
        case ops.Layer():
            source, own = flows[operation.source], flows[place]
            varies = _varying(operation, source.alive, source.constant)
            # Only weights on a path stay, whatever else has to keep its place for others.
            used = np.multiply.outer(own.on_path, varies)
            weight = operation.weight * used.reshape(*used.shape, *[1] * (len(shape) - 1))
            bias = operation.bias + _taps(operation) @ np.where(varies, 0.0, source.constant)
            bias = np.where(own.alive, bias * own.read, own.constant)
            columns = kept[operation.source]
            weight = np.ascontiguousarray(weight[rows][:, columns])
            narrow = replace(operation, shape=shape, weight=weight, bias=bias[rows])
            if isinstance(narrow, ops.Conv):
                return replace(narrow, groups=_groups(narrow, rows, columns))
            return narrow
        case ops.Affine(scale=scale, shift=shift):
            return replace(operation, shape=shape, scale=scale[rows], shift=shift[rows])
        case ops.Channels(taken=taken):
            numbers = kept[operation.source].cumsum() - 1
            return replace(
                operation, shape=shape, taken=np.where(taken >= 0, numbers[taken], -1)[rows]
            )
    return replace(operation, shape=shape)


def _merge_constants(program: Program) -> Program:
    """Return a program in which of the constants that only convolutions read one does for all."""
    flows, users, units = analyse(program), program.users(), find_units(program.links)
    operations: list[Any] = list(program.operations)
    # Of what is added, a constant is needed in every place.
    sums = [units[place] for place, found in enumerate(operations) if isinstance(found, ops.Add)]
    added = np.concatenate([*sums, np.empty(0, np.int64)])
    for place, flow in enumerate(flows):
        readers = [operations[user] for user in users[place]]
        constants = np.flatnonzero(~flow.alive & flow.read & (flow.constant != 0))
        if len(constants) < 2 or not all(map(_is_one_group, readers)):
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


def _taps(layer: ops.Layer) -> Array:
    """Return what a layer gives for inputs of 1, (outputs, inputs)."""
    return layer.weight.reshape(*layer.weight.shape[:2], -1).sum(axis=2)


def _varying(layer: ops.Layer, alive: Mask, constant: Array) -> Mask:
    """Return the inputs of a layer that are not one constant wherever its kernel looks."""
    # Zeros around the image make two values of a constant.
    return alive | (constant != 0) if _pads(layer) else alive


def _is_one_group(operation: ops.Operation) -> bool:
    return isinstance(operation, ops.Conv) and operation.groups == 1


def _pads(layer: ops.Layer) -> bool:
    return isinstance(layer, ops.Conv) and any(layer.padding)
