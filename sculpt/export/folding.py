"""Batch norms that become part of the layer before them."""

from collections.abc import Callable
from dataclasses import replace

from sculpt.export.program import Add, Affine, Conv, Input, Linear, Operation, Program


def fold_affine(program: Program) -> Program:
    """Return a program whose layers take up the scales and shifts behind them.

    Where something else reads the layer, too, both stay as they are.
    """
    users = program.users()
    operations = list(program.operations)
    gone: dict[int, int] = {}  # position of what goes -> of what is read in its place
    for place, operation in enumerate(operations):
        if not isinstance(operation, Affine):
            continue
        source = gone.get(operation.source, operation.source)
        layer = operations[source]
        if isinstance(layer, Conv | Linear) and len(users[operation.source]) == 1:
            across = (-1, *[1] * (layer.weight.ndim - 1))
            operations[source] = replace(
                layer,
                weight=layer.weight * operation.scale.reshape(across),
                bias=layer.bias * operation.scale + operation.shift,
            )
            gone[place] = source
    staying = [place for place in range(len(operations)) if place not in gone]
    moved = {place: number for number, place in enumerate(staying)}

    def place_of(place: int) -> int:
        return moved[gone.get(place, place)]

    return Program(tuple(_resourced(operations[place], place_of) for place in staying))


def _resourced(operation: Operation, place_of: Callable[[int], int]) -> Operation:
    """Return an operation that reads from where others have moved to."""
    match operation:
        case Input():
            return operation
        case Add(source=source, other=other):
            return replace(operation, source=place_of(source), other=place_of(other))
    return replace(operation, source=place_of(operation.source))
