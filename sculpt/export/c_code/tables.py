"""The numbers of a program as tables of the C code."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sculpt.errors import ExportError
from sculpt.export import program as ops
from sculpt.export.c_code.layout import Plan
from sculpt.export.c_code.nodes import Node
from sculpt.export.program import as_float32

MOST_CODES = 2**16 - 1
"""Taps of a block of input channels: they, and their number, are 16-bit integers."""

LEAST_BLOCK, LEAST_WEIGHTS = 12, 16
"""Of a block: input channels, and weights that an output has in it on average. Pixels of more
channels do not fit into a first-level cache; fewer weights are not worth to put a sum aside."""


@dataclass
class Tables:
    """All that stands in the C code's tables, as far as it does not depend on the plan."""

    weights: list[NDArray[np.float32]] = field(default_factory=list)
    codes: list[NDArray[np.int64]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    constants: list[NDArray[np.float32]] = field(default_factory=list)
    taken: list[NDArray[np.int64]] = field(default_factory=list)
    layers: list[tuple[int, ...]] = field(default_factory=list)
    maps: list[tuple[int, ...]] = field(default_factory=list)
    pools: list[tuple[int, ...]] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    """Of every node the position in the table of its kind."""
    outputs: int = 1
    offsets: int = 1
    """The largest of any layer."""

    def add(self, node: Node) -> None:
        """Add what the node needs.

        Raises:
            ExportError: a kernel is too large for the code.
            NumericsError: a value is not finite in float32.
        """
        operation, item = node.operation, 0
        if isinstance(operation, ops.Layer):
            item = self._add_layer(operation)
        elif isinstance(operation, ops.Pool):
            item = len(self.pools)
            sizes = (*operation.window, *operation.stride, *operation.padding)
            self.pools.append((int(operation.function == "max"), *sizes))
        elif node.kind == "MAP":
            item, taken, scale = len(self.maps), -1, -1
            if isinstance(operation, ops.Channels):
                taken = _append(self.taken, operation.taken)
            if isinstance(operation, ops.Affine):
                both = np.concatenate([operation.scale, operation.shift])
                scale = _append(self.constants, as_float32(both, operation.name))
            self.maps.append((taken, scale))
        self.items.append(item)

    def _add_layer(self, layer: ops.Layer) -> int:
        name, weight, strides = layer.name, layer.weight, (1, 1, 0, 0)
        if isinstance(layer, ops.Conv):
            strides = (*layer.stride, *layer.padding)
        else:
            weight = weight[:, :, None, None]
        outputs, inputs, *kernel = weight.shape
        taps = kernel[0] * kernel[1]
        if taps > MOST_CODES:
            raise ExportError(
                f"a kernel must have at most {MOST_CODES:,} weights for each channel in C, but "
                f"{name} has {taps:,}; export another format"
            )
        values = as_float32(weight, name)
        density = np.count_nonzero(values) / max(outputs * inputs, 1)
        block = max(LEAST_BLOCK, round(LEAST_WEIGHTS / max(density, 1e-9)))
        block = max(1, min(block, inputs, MOST_CODES // taps))
        blocks = max(1, -(-inputs // block))
        block = max(1, -(-inputs // blocks))  # all of about one size
        output, channel, row, column = np.nonzero(values)
        code = (channel % block) * taps + row * kernel[1] + column
        place = channel // block * outputs + output
        order = np.lexsort((code, place))
        kept = values[output, channel, row, column][order]
        first = _append(self.weights, kept)
        _append(self.codes, code[order])
        count = _append(self.counts, np.bincount(place, minlength=blocks * outputs))
        shift = _append(self.constants, as_float32(layer.bias, name))
        self.layers.append(
            (outputs, *kernel, *strides, blocks, block, first, count, shift),
        )
        self.outputs = max(self.outputs, outputs)
        self.offsets = max(self.offsets, block * taps)
        return len(self.layers) - 1

    def text(self) -> str:
        """Return the tables in C."""
        layers = _structs("layer", "layers", self.layers)
        maps = _structs("map", "maps", self.maps)
        pools = _structs("pool", "pools", self.pools)
        return "\n".join(
            [
                f"#define OUTPUTS {self.outputs} /* of the widest layer */",
                f"#define OFFSETS {self.offsets} /* taps of the largest block */",
                layers,
                maps,
                pools,
                _integers("int32_t", "channels_taken", self.taken),
                _integers("uint16_t", "codes", self.codes),
                _integers("uint16_t", "counts", self.counts),
                _floats("weights", self.weights),
                _floats("constants", self.constants),
            ]
        )


def plans_text(plans: Sequence[Plan], nodes: Sequence[Node], items: Sequence[int]) -> str:
    """Return the plans in C."""
    lines, rows = [], []
    for plan in plans:
        name = f"{plan.grid[0]}x{plan.grid[1]}"
        values = [
            (v.channels, v.height, v.width, *v.grid, *v.before, *v.after, v.start)
            for v in plan.values
        ]
        steps = []
        for step in plan.steps:
            node = nodes[step.node]
            moved = step.kind == "MOVE"
            activation = "NOTHING" if moved else node.activation
            item = 0 if moved else items[step.node]
            slope = f"{float(np.float32(node.slope)).hex()}f"
            steps.append((step.kind, item, step.source, step.other, step.out, activation, slope))
        lines += [
            _structs("value", f"values_{name}", values),
            _structs("step", f"steps_{name}", steps),
        ]
        sizes = (*plan.grid, plan.vectors, len(steps), plan.steps[-1].out)
        rows.append((*sizes, repr(float(plan.cost)), f"values_{name}", f"steps_{name}"))
    lines.append(_structs("plan", "plans", rows))
    return "\n".join(lines)


def _append(table: list[NDArray], values: NDArray) -> int:
    """Add to a table; return where it begins."""
    begin = sum(map(len, table))
    table.append(values)
    return begin


def _structs(kind: str, name: str, rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"    {{{', '.join(map(str, row))}}},\n" for row in rows)
    return f"static const struct {kind} {name}[] = {{\n{body or '    {0},'}}};"


def _integers(kind: str, name: str, table: list[NDArray[np.int64]]) -> str:
    numbers = [str(number) for part in table for number in part.tolist()]
    return f"static const {kind} {name}[] = {{\n{_lines(numbers)}}};"


def _floats(name: str, table: list[NDArray[np.float32]]) -> str:
    """Return them by their bits: exactly, and in less text than that of a hexadecimal fraction."""
    numbers = [f"0x{bits:x}" for part in table for bits in part.view(np.uint32).tolist()]
    size = max(1, len(numbers))
    union = f"static const union {{\n    uint32_t bits[{size}];\n    float value[{size}];\n}}"
    return f"{union} {name} = {{{{\n{_lines(numbers)}}}}};"


def _lines(numbers: list[str], width: int = 16) -> str:
    rows = [numbers[i : i + width] for i in range(0, len(numbers), width)] or [["0"]]
    return "".join(f"{','.join(row)},\n" for row in rows)
