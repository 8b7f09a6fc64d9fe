"""Memory layout of the C code: grids of tiles, their rims, and the arena.

There is a plan for each grid that an image may be cut into so that its tiles fill the lanes. A
result has that grid, or a coarser one if its sides, or those of a result computed from it, do not
allow it.
"""

from dataclasses import dataclass, field

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

    @property
    def vectors(self) -> int:
        """Its size."""
        height = self.before[0] + self.height + self.after[0]
        return self.channels * height * (self.before[1] + self.width + self.after[1])


@dataclass(frozen=True)
class PlanStep:
    """A step of a plan: the C code's `struct step`; `source`, `other`, `out` are values."""

    kind: Kind
    node: int
    source: int
    other: int
    out: int


@dataclass
class Plan:
    """Execution of a program with images cut into a grid of tiles."""

    grid: Pair
    values: list[Value]
    steps: list[PlanStep]
    vectors: int
    """Size of the arena."""
    cost: float
    """For a group of images whose tiles fill the lanes: multiplications of a vector by a weight."""


def plan_for(nodes: list[Node], grid: Pair) -> Plan:
    """Plan the execution of a program for one grid.

    Raises:
        ExportError: its results are too large for 32-bit offsets.
    """
    planner = _Planner(nodes, grid)
    for position in range(len(nodes)):
        planner.add(position)
    vectors = _place(planner.values, planner.steps)
    for step in planner.steps:
        touched = {step.source, step.other, step.out} - {-1}
        traffic = sum(planner.values[value].vectors for value in touched)
        planner.cost += traffic * (FAR_OVERHEAD if traffic > NEAR_VECTORS else 1.0)
    return Plan(grid, planner.values, planner.steps, vectors, planner.cost)


class _Planner:
    def __init__(self, nodes: list[Node], grid: Pair) -> None:
        self.nodes, self.grid = nodes, grid
        self.values: list[Value] = []
        self.steps: list[PlanStep] = []
        self.made: list[int] = []  # for every node the value that holds its result
        self.moved: dict[tuple[int, Pair], int] = {}
        self.cost = 0.0

    def add(self, position: int) -> None:
        node = self.nodes[position]
        if node.kind == "INPUT":
            out = self.value(node.shape, self.grid_for_input(position))
            self.step("INPUT", position, -1, -1, out)
        elif node.kind == "MOVE":
            source = self.values[self.made[node.source]]
            if (source.height, source.width, source.grid) == (1, 1, (1, 1)):
                out = self.made[node.source]
            else:
                out = self.value(node.shape, (1, 1))
                self.step("MOVE", position, self.made[node.source], -1, out)
        else:
            present = self.values[self.made[node.source]].grid
            grid = self.grid_for(node) or present
            # A window over a whole image takes its tiles together, however they are cut.
            size = self.nodes[node.source].shape[1:]
            whole = isinstance(node.operation, ops.Pool) and node.operation.window == size
            whole = whole and node.shape[1:] == (1, 1)
            source_value = self.in_grid(node.source, present if whole else grid)
            out = self.value(node.shape, grid)
            other = -1 if node.other < 0 else self.in_grid(node.other, grid)
            self.step(node.kind, position, source_value, other, out)
            if node.kind == "CONV":
                assert isinstance(node.operation, ops.Layer)
                given = self.values[source_value]
                height, width = self.values[out].height, self.values[out].width
                if isinstance(node.operation, ops.Conv):
                    for axis, sides in enumerate([(given.height, height), (given.width, width)]):
                        before, after = _rim(node.operation, axis, *sides)
                        given.before[axis] = max(given.before[axis], before)
                        given.after[axis] = max(given.after[axis], after)
                tiles = -(-height // TILE_SIDE) * -(-width // TILE_SIDE)
                reads = float(np.count_nonzero(node.operation.weight))
                self.cost += reads * (height * width + tiles * TILE_OVERHEAD)
        self.made.append(out)

    def value(self, shape: tuple[int, int, int], grid: Pair) -> int:
        channels, height, width = shape
        self.values.append(Value(channels, height // grid[0], width // grid[1], grid))
        return len(self.values) - 1

    def step(self, kind: Kind, node: int, source: int, other: int, out: int) -> None:
        self.steps.append(PlanStep(kind, node, source, other, out))

    def in_grid(self, node: int, grid: Pair) -> int:
        """Return the value of a node's result in a grid, moving it if need be."""
        found = self.made[node]
        if self.values[found].grid == grid:
            return found
        if (found, grid) not in self.moved:
            out = self.value(self.nodes[node].shape, grid)
            self.step("MOVE", node, found, -1, out)
            self.moved[found, grid] = out
        return self.moved[found, grid]

    def grid_for_input(self, position: int) -> Pair:
        """Return the grid that the first user of the images needs."""
        for node in self.nodes:
            if node.source == position and (grid := self.grid_for(node)):
                return grid
        return (1, 1)

    def grid_for(self, node: Node) -> Pair | None:
        """Return the finest grid that allows a layer or pool tile by tile; None for other nodes."""
        operation = node.operation
        if isinstance(operation, ops.Linear):
            return (1, 1)
        if not isinstance(operation, ops.Conv | ops.Pool):
            return None
        shape = self.nodes[node.source].shape

        def side(axis: int) -> int:
            count = self.grid[axis]
            while count > 1 and not _allows(operation, axis, shape[1 + axis], node.shape, count):
                count //= 2
            return count

        return side(0), side(1)


def _allows(
    operation: ops.Conv | ops.Pool, axis: int, size: int, shape: tuple[int, int, int], count: int
) -> bool:
    """Whether each of `count` output tiles depends on one input tile and its rim only.

    The rim must not reach beyond the next tile.
    """
    given, stride = shape[1 + axis], operation.stride[axis]
    inner, outer = size // count, given // count
    if size % count or given % count or inner != stride * outer:
        return False
    if isinstance(operation, ops.Pool):  # Its padding is not made of zeros.
        return operation.padding[axis] == 0 and operation.window[axis] <= stride
    return max(_rim(operation, axis, inner, outer)) <= inner


def _rim(operation: ops.Conv, axis: int, inner: int, outer: int) -> Pair:
    padding, window = operation.padding[axis], operation.weight.shape[2 + axis]
    reach = (outer - 1) * operation.stride[axis] + window - padding
    return padding, max(0, reach - inner)


def _place(values: list[Value], steps: list[PlanStep]) -> int:
    """Place every value in the arena, reusing memory that is not read any more; return its size.

    A result never overlaps a value that it is computed from.
    """
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
