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
    nodes: dict[int, Node] = {}  # keyed by the position of the last operation in them

    def takes_more(operation: int) -> bool:
        """Whether an addition or activation can be fused into the node of an operation."""
        node = nodes[operation]
        plain = node.kind in ("CONV", "MAP") and node.activation == "NOTHING"
        return plain and len(users[operation]) == 1

    for position, operation in enumerate(program.operations):
        shape = _as_image(operation.shape)
        match operation:
            case ops.Input():
                node = Node("INPUT", operation, shape, -1)
            case ops.Layer(source=source):
                node = Node("CONV", operation, shape, source)
            case ops.Pool(source=source):
                node = Node("POOL", operation, shape, source)
            case ops.Flatten(source=source):
                node = Node("MOVE", operation, shape, source)
            case ops.Add(source=source, other=other):
                if takes_more(other) and nodes[other].other < 0:
                    node = replace(nodes.pop(other), other=source)
                elif takes_more(source) and nodes[source].other < 0:
                    node = replace(nodes.pop(source), other=other)
                else:
                    node = Node("MAP", operation, shape, source, other)
            case ops.Activation(source=source, function=function, slope=slope):
                name = function.upper()
                if takes_more(source):
                    node = replace(nodes.pop(source), activation=name, slope=slope)
                else:
                    node = Node("MAP", operation, shape, source, -1, name, slope)
            case ops.Affine(source=source) | ops.Channels(source=source):
                node = Node("MAP", operation, shape, source)
        nodes[position] = node
    places = {-1: -1} | {position: place for place, position in enumerate(nodes)}
    return [
        replace(node, source=places[node.source], other=places[node.other])
        for node in nodes.values()
    ]


def _as_image(shape: Shape) -> tuple[int, int, int]:
    channels, *sides = (*shape, 1, 1)[: max(3, len(shape))]
    return channels, prod(sides[:-1]), sides[-1]  # more of them are only moved
