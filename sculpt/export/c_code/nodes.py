"""Nodes of the C code: operations of a program, fused with the additions and activations after."""

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from sculpt.export import program as ops
from sculpt.export.program import Program
from sculpt.graph.trace import Shape

Kind = Literal["INPUT", "CONV", "MAP", "POOL", "MOVE"]


@dataclass(frozen=True)
class Node:
    """An operation, fused with the addition and the activation after it."""

    kind: Kind
    operation: ops.Operation
    """The first of the fused ones."""
    shape: tuple[int, int, int]
    source: int
    """Position among the nodes; -1 for the input."""
    other: int = -1
    """Position of the node whose result is added; -1 for none."""
    activation: str = "NOTHING"
    slope: float = 0.0


def nodes_of(program: Program) -> list[Node]:
    """Return the nodes of a program in order of execution."""
    users = program.users()
    nodes: list[Node | None] = []
    made: list[int] = []  # for every operation the node that holds its result

    def takes_more(operation: int) -> bool:
        """Whether an addition or activation can be fused into the node of an operation."""
        node = nodes[made[operation]]
        return (
            node is not None
            and len(users[operation]) == 1
            and node.kind in ("CONV", "MAP")
            and node.activation == "NOTHING"
        )

    def grow(operation: int, **more: object) -> Node:
        """Fuse more into a node, and move it behind all its sources."""
        node = nodes[made[operation]]
        assert node is not None
        nodes[made[operation]] = None
        return replace(node, **more)  # type: ignore[arg-type]

    for operation in program.operations:
        shape = _as_image(operation.shape)
        match operation:
            case ops.Input():
                node = Node("INPUT", operation, shape, -1)
            case ops.Layer(source=source):
                node = Node("CONV", operation, shape, made[source])
            case ops.Pool(source=source):
                node = Node("POOL", operation, shape, made[source])
            case ops.Flatten(source=source):
                node = Node("MOVE", operation, shape, made[source])
            case ops.Add(source=source, other=other):
                first, second = nodes[made[source]], nodes[made[other]]
                assert first is not None
                assert second is not None
                if takes_more(other) and second.other < 0:
                    node = grow(other, other=made[source])
                elif takes_more(source) and first.other < 0:
                    node = grow(source, other=made[other])
                else:
                    node = Node("MAP", operation, shape, made[source], made[other])
            case ops.Activation(source=source, function=function, slope=slope):
                name = function.upper()
                if takes_more(source):
                    node = grow(source, activation=name, slope=slope)
                else:
                    node = Node("MAP", operation, shape, made[source], -1, name, slope)
            case ops.Affine(source=source) | ops.Channels(source=source):
                node = Node("MAP", operation, shape, made[source])
        made.append(len(nodes))
        nodes.append(node)
    return _closed(nodes)


def _closed(nodes: list[Node | None]) -> list[Node]:
    """Remove the gaps of nodes that were moved."""
    position, kept = {-1: -1}, list[Node]()
    for old, node in enumerate(nodes):
        if node is not None:
            position[old] = len(kept)
            source, other = position[node.source], position[node.other]
            kept.append(replace(node, source=source, other=other))
    return kept


def _as_image(shape: Shape) -> tuple[int, int, int]:
    channels, height, width = (*shape, 1, 1)[:3]
    assert prod(shape) == channels * height * width
    return channels, height, width
