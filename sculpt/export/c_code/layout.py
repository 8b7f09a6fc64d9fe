"""Memory layout of the C code: grids of tiles, their rims, and the arena.

There is a plan for each grid that an image may be cut into so that its tiles fill the lanes. A
result has that grid, or a coarser one if its sides, or those of a result computed from it, do not
allow it.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sculpt.errors import ExportError
from sculpt.export import program as ops
from sculpt.export.c_code.nodes import Kind, Node
from sculpt.export.program import Pair

GRIDS: tuple[Pair, ...] = ((2, 2), (4, 4), (2, 4), (1, 1))
"""Grids of tiles, in order of preference at equal cost. Four tiles of each image leave enough
pixels in a tile for the registers, even of the smallest results, and need less memory than a whole
image in every lane."""

TILE_SIDE, TILE_OVERHEAD = 4, 2.0
"""Pixels on a side of a tile in registers; and the cost of reading a weight for it, in
multiplications of a vector."""

NEAR_VECTORS, FAR_OVERHEAD = 2**15, 6.0
"""Vectors that fit into a second-level cache; and the cost of touching one if a step touches more,
in multiplications."""

MOST_VECTORS = 2**31 - 1
"""Offsets are 32-bit integers."""


@dataclass
class Value:
    """Memory of one result: the C code's `struct value`."""

    channels: int
    height: int
    width: int
    """Width of a tile."""
    grid: Pair
    before: list[int] = field(default_factory=lambda: [0, 0])
    """Rim above and to the left of each tile."""
    after: list[int] = field(default_factory=lambda: [0, 0])
    """Rim below and to the right."""
    start: int = 0

    def struct(self) -> tuple[int, ...]:
        """Return the fields of the C code's struct."""
        sizes = (self.channels, self.height, self.width, *self.grid)
        return (*sizes, *self.before, *self.after, self.start)

    @property
    def vectors(self) -> int:
        """Its size."""
        height = self.before[0] + self.height + self.after[0]
        return self.channels * height * (self.before[1] + self.width + self.after[1])


class Step(NamedTuple):
    """A step of a plan: the C code's `struct step`; `source`, `other`, `out` are values."""

    kind: Kind
    node: int
    source: int
    other: int
    out: int


class Plan:
    """Execution of a program with images cut into a grid of tiles.

    Attributes:
        values, steps: In order of execution.
        vectors: Size of the arena.
        cost: For a group of images whose tiles fill the lanes: multiplications of a vector by a
            weight.
    """

    def __init__(self, nodes: list[Node], grid: Pair) -> None:
        """Plan the execution of nodes; ExportError if results are too large for 32-bit offsets."""
        self.nodes, self.grid = nodes, grid
        self.values: list[Value] = []
        self.steps: list[Step] = []
        self.made: list[int] = []  # for every node the value that holds its result
        self.moved: dict[tuple[int, Pair], int] = {}
        self.cost = 0.0
        for position, node in enumerate(nodes):
            self.made.append(self.add(position, node))
        self.vectors = _place(self.values, self.steps)
        for step in self.steps:
            touched = {step.source, step.other, step.out} - {-1}
            traffic = sum(self.values[value].vectors for value in touched)
            self.cost += traffic * (FAR_OVERHEAD if traffic > NEAR_VECTORS else 1.0)

    def add(self, position: int, node: Node) -> int:
        """Add the steps of a node, and return the value of its result."""
        if node.kind == "INPUT":
            # The grid that the first user of the images needs.
            users = (self.grid_for(user) for user in self.nodes if user.source == position)
            return self.step("INPUT", position, -1, -1, next(filter(None, users), (1, 1)))
        source = self.values[self.made[node.source]]
        if node.kind == "MOVE":
            if (source.height, source.width, source.grid) == (1, 1, (1, 1)):
                return self.made[node.source]
            return self.step("MOVE", position, self.made[node.source], -1, (1, 1))
        grid = self.grid_for(node) or source.grid
        # A window over a whole image takes its tiles together, however they are cut.
        size = self.nodes[node.source].shape[1:]
        whole = isinstance(node.operation, ops.Pool) and node.operation.window == size
        whole = whole and node.shape[1:] == (1, 1)
        place = self.in_grid(node.source, source.grid if whole else grid)
        # Before a move of the other, as the C code numbers them.
        out = self.value(node.shape, grid)
        other = -1 if node.other < 0 else self.in_grid(node.other, grid)
        self.steps.append(Step(node.kind, position, place, other, out))
        if isinstance(node.operation, ops.Layer) and node.kind == "CONV":
            given = self.values[place]
            height, width = self.values[out].height, self.values[out].width
            if isinstance(node.operation, ops.Conv):
                for axis, sides in enumerate([(given.height, height), (given.width, width)]):
                    before, after = _rim(node.operation, axis, *sides)
                    given.before[axis] = max(given.before[axis], before)
                    given.after[axis] = max(given.after[axis], after)
            tiles = -(-height // TILE_SIDE) * -(-width // TILE_SIDE)
            reads = float(np.count_nonzero(node.operation.weight))
            self.cost += reads * (height * width + tiles * TILE_OVERHEAD)
        return out

    def value(self, shape: tuple[int, int, int], grid: Pair) -> int:
        """Add a value, and return its number."""
        channels, height, width = shape
        self.values.append(Value(channels, height // grid[0], width // grid[1], grid))
        return len(self.values) - 1

    def step(self, kind: Kind, node: int, source: int, other: int, grid: Pair) -> int:
        """Add a step that computes a node's result in a grid, and return its value."""
        out = self.value(self.nodes[node].shape, grid)
        self.steps.append(Step(kind, node, source, other, out))
        return out

    def in_grid(self, node: int, grid: Pair) -> int:
        """Return the value of a node's result in a grid, moving it if need be."""
        found = self.made[node]
        if self.values[found].grid == grid:
            return found
        if (found, grid) not in self.moved:
            self.moved[found, grid] = self.step("MOVE", node, found, -1, grid)
        return self.moved[found, grid]

    def grid_for(self, node: Node) -> Pair | None:
        """Return the finest grid that allows a layer or pool tile by tile; None for other nodes."""
        operation = node.operation
        if isinstance(operation, ops.Linear):
            return (1, 1)
        if not isinstance(operation, ops.Conv | ops.Pool):
            return None
        given = self.nodes[node.source].shape[1:]
        counts = list(self.grid)
        for axis, (size, result) in enumerate(zip(given, node.shape[1:], strict=True)):
            while counts[axis] > 1 and not _allows(operation, axis, size, result, counts[axis]):
                counts[axis] //= 2
        return counts[0], counts[1]


def _allows(operation: ops.Conv | ops.Pool, axis: int, size: int, result: int, count: int) -> bool:
    """Whether each of `count` output tiles depends on one input tile and its rim only, which must
    not reach beyond the next tile."""
    stride, inner, outer = operation.stride[axis], size // count, result // count
    if size % count or result % count or inner != stride * outer:
        return False
    if isinstance(operation, ops.Pool):  # Its padding is not made of zeros.
        return operation.padding[axis] == 0 and operation.window[axis] <= stride
    return max(_rim(operation, axis, inner, outer)) <= inner


def _rim(operation: ops.Conv, axis: int, inner: int, outer: int) -> Pair:
    padding, window = operation.padding[axis], operation.weight.shape[2 + axis]
    reach = (outer - 1) * operation.stride[axis] + window - padding
    return padding, max(0, reach - inner)


def _place(values: list[Value], steps: list[Step]) -> int:
    """Place every value in the arena, reusing memory that is not read any more; return its size."""
    last = {steps[-1].out: len(steps)}
    for time, step in reversed(list(enumerate(steps))):
        for read in (step.source, step.other, step.out):
            last.setdefault(read, time)
    end, living = 0, dict[int, Value]()
    for time, step in enumerate(steps):
        value, start = values[step.out], 0
        for used in sorted(living.values(), key=lambda used: used.start):
            if used.start - start >= value.vectors:
                break
            start = max(start, used.start + used.vectors)
        value.start = start
        living[step.out] = value
        end = max(end, start + value.vectors)
        living = {position: used for position, used in living.items() if last[position] > time}
    if end > MOST_VECTORS:
        raise ExportError(
            f"the results of an image must fit into {MOST_VECTORS:,} vectors of the C code's "
            f"memory, but take {end:,}; export a smaller network, or another format"
        )
    return end
