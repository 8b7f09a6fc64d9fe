"""The C source of a program: its tables, and the runtime that goes through them."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from math import prod
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from sculpt.errors import ExportError
from sculpt.export import program as ops
from sculpt.export.c_code.layout import GRIDS, Plan, plan_for
from sculpt.export.c_code.nodes import Node, nodes_of
from sculpt.export.program import Program, as_float32

FORMAT = "sculpt-c-1"
LONGEST_NAME = 200
RUNTIME = "runtime.c"
PLACE_OF_TITLE = "SCULPT_TITLE"
PLACE_OF_TABLES = "/*SCULPT_TABLES*/"

MOST_CODES = 2**16 - 1
"""Taps of a block of input channels, which are 16-bit integers."""

LEAST_BLOCK, LEAST_WEIGHTS = 12, 16
"""Input channels of a block, and its mean number of weights of an output. Pixels of more channels
do not fit into a first-level cache; for fewer weights a sum is not worth storing."""


class Info(TypedDict):
    """Description of a network by `sculpt_info()`."""

    format: str
    name: str
    input_shape: list[int]
    """Shape of one image: channels, height, width; or the length of a row."""
    classes: int
    parameters: int
    """All values of its layers, zeros included."""
    nonzero_weights: int
    macs: int
    """Multiply-accumulates for one image, of weights that are not zero."""


def c_code(program: Program, name: str = "network") -> str:
    """Return the C source of a program.

    Weights that are zero in float32 are left out; the others are exact.

    Args:
        program: With zeros for pruned weights.
        name: Of the network, for its title and `sculpt_info()`.

    Raises:
        ExportError: the network is too large for 32-bit offsets, or a kernel for 16-bit ones.
        NumericsError: a value is not finite in float32.
    """
    nodes = nodes_of(program)
    plans = [plan_for(nodes, grid) for grid in GRIDS]
    tables = Tables()
    for node in nodes:
        tables.add(node)
    title = re.sub(r"[^\w .,+()-]", "_", name, flags=re.ASCII)[:LONGEST_NAME]
    text = "\n".join(
        [
            f"#define IMAGE {prod(program.input_shape)} /* numbers of an image */",
            f"#define CLASSES {program.classes}",
            f"#define INFO {_literal(json.dumps(info(program, title)))}",
            tables.text(),
            plans_text(plans, nodes, tables.items),
        ]
    )
    runtime = files(__package__).joinpath(RUNTIME).read_text(encoding="utf-8")
    return runtime.replace(PLACE_OF_TITLE, title, 1).replace(PLACE_OF_TABLES, text, 1)


def info(program: Program, name: str) -> Info:
    """Describe a network for `sculpt_info()`."""
    nnz = sum(np.count_nonzero(layer.weight.astype(np.float32)) for layer in program.layers())
    return {
        "format": FORMAT,
        "name": name,
        "input_shape": list(program.input_shape),
        "classes": program.classes,
        "parameters": sum(values.size for _, values in program.values()),
        "nonzero_weights": int(nnz),
        "macs": program.macs(dense=False),
    }


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@dataclass
class Tables:
    """Tables of the C code that do not depend on the plan."""

    weights: list[NDArray[np.float32]] = field(default_factory=list)
    codes: list[NDArray[np.int64]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    constants: list[NDArray[np.float32]] = field(default_factory=list)
    taken: list[NDArray[np.int64]] = field(default_factory=list)
    layers: list[tuple[int, ...]] = field(default_factory=list)
    maps: list[tuple[int, ...]] = field(default_factory=list)
    pools: list[tuple[int, ...]] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    """For every node its position in the table of its kind."""
    outputs: int = 1
    offsets: int = 1
    """Taps of the largest block."""

    def add(self, node: Node) -> None:
        """Add a node's layer, pool or map."""
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
    """Append to a table; return the position of the first value."""
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
    """Write floats by their bits: exact, and shorter than hexadecimal fractions."""
    numbers = [f"0x{bits:x}" for part in table for bits in part.view(np.uint32).tolist()]
    size = max(1, len(numbers))
    union = f"static const union {{\n    uint32_t bits[{size}];\n    float value[{size}];\n}}"
    return f"{union} {name} = {{{{\n{_lines(numbers)}}}}};"


def _lines(numbers: list[str], width: int = 16) -> str:
    rows = [numbers[i : i + width] for i in range(0, len(numbers), width)] or [["0"]]
    return "".join(f"{','.join(row)},\n" for row in rows)
