"""The C source of a program: its tables, and the runtime that goes through them."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from math import prod
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from sculpt.errors import ExportError
from sculpt.export import program as ops
from sculpt.export.c_code.layout import GRIDS, Plan, Value
from sculpt.export.c_code.nodes import Node, nodes_of
from sculpt.export.program import Program, as_float32

FORMAT = "sculpt-c-1"
LONGEST_NAME = 200
RUNTIME = "runtime.c"
PLACE_OF_TITLE = "SCULPT_TITLE"
PLACE_OF_TABLES = "/*SCULPT_TABLES*/"

STRUCTS = ("layer", "map", "pool")
INTEGERS = {"channels_taken": "int32_t", "codes": "uint16_t", "counts": "uint16_t"}

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
    """Return the C source of a program; its name is for the title and `sculpt_info()`.

    Weights that are zero in float32 are left out; the others are exact.

    Raises:
        ExportError: the network is too large for 32-bit offsets, or a kernel for 16-bit ones.
        NumericsError: a value is not finite in float32.
    """
    nodes, tables = nodes_of(program), _Tables()
    plans = [Plan(nodes, grid) for grid in GRIDS]
    items = [tables.add(node) for node in nodes]
    title = re.sub(r"[^\w .,+()-]", "_", name, flags=re.ASCII)[:LONGEST_NAME]
    text = "\n".join(
        [
            f"#define IMAGE {prod(program.input_shape)} /* numbers of an image */",
            f"#define CLASSES {program.classes}",
            # JSON escapes what a literal of C does.
            f"#define INFO {json.dumps(json.dumps(info(program, title)))}",
            tables.text(),
            *_plans_text(plans, nodes, items),
        ]
    )
    runtime = files(__package__).joinpath(RUNTIME).read_text(encoding="utf-8")
    return runtime.replace(PLACE_OF_TITLE, title, 1).replace(PLACE_OF_TABLES, text, 1)


def info(program: Program, name: str) -> Info:
    """Describe a network for `sculpt_info()`."""
    nnz = sum(np.count_nonzero(layer.weight.astype(np.float32)) for layer in program.layers())
    # Zeros between groups count, as in files that are there already.
    zeros = sum(
        layer.weight.size * (layer.inputs // layer.weight.shape[1] - 1)
        for layer in program.layers()
    )
    return {
        "format": FORMAT,
        "name": name,
        "input_shape": list(program.input_shape),
        "classes": program.classes,
        "parameters": zeros + sum(values.size for _, values in program.values()),
        "nonzero_weights": int(nnz),
        "macs": program.macs(dense=False),
    }


class _Tables:
    """Tables of the C code that do not depend on the plan."""

    def __init__(self) -> None:
        self.numbers: defaultdict[str, list[NDArray]] = defaultdict(list)
        self.structs: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)
        self.outputs = self.offsets = 1  # of the widest layer, and taps of the largest block

    def add(self, node: Node) -> int:
        """Add a node's layer, pool or map; return its position in the table of its kind."""
        match node.operation:
            case ops.Layer() as layer:
                return self._add("layer", self._layer(layer))
            case ops.Pool() as pool:
                sizes = (*pool.window, *pool.stride, *pool.padding)
                return self._add("pool", (int(pool.function == "max"), *sizes))
            case ops.Channels(taken=taken):
                return self._add("map", (self._append("channels_taken", taken), -1))
            case ops.Affine() as norm:
                both = as_float32(np.concatenate([norm.scale, norm.shift]), norm.name)
                return self._add("map", (-1, self._append("constants", both)))
        return self._add("map", (-1, -1)) if node.kind == "MAP" else 0

    def text(self) -> str:
        """Return the tables in C."""
        return "\n".join(
            [
                f"#define OUTPUTS {self.outputs} /* of the widest layer */",
                f"#define OFFSETS {self.offsets} /* taps of the largest block */",
                *(_structs(kind, f"{kind}s", self.structs[kind]) for kind in STRUCTS),
                *(self._integers(kind, name) for name, kind in INTEGERS.items()),
                self._floats("weights"),
                self._floats("constants"),
            ]
        )

    def _layer(self, layer: ops.Layer) -> tuple[int, ...]:
        name, weight = layer.name, layer.weight
        strides: tuple[int, ...] = (1, 1, 0, 0)
        if isinstance(layer, ops.Conv):
            strides = (*layer.stride, *layer.padding)
        else:
            weight = weight[:, :, None, None]
        outputs, of_group, *kernel = weight.shape
        inputs = layer.inputs
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
        output, of_its_group, row, column = np.nonzero(values)
        channel = of_its_group + output // (outputs * of_group // inputs) * of_group
        code = (channel % block) * taps + row * kernel[1] + column
        place = channel // block * outputs + output
        order = np.lexsort((code, place))
        first = self._append("weights", values[output, of_its_group, row, column][order])
        self._append("codes", code[order])
        count = self._append("counts", np.bincount(place, minlength=blocks * outputs))
        shift = self._append("constants", as_float32(layer.bias, name))
        self.outputs = max(self.outputs, outputs)
        self.offsets = max(self.offsets, block * taps)
        return (outputs, *kernel, *strides, blocks, block, first, count, shift)

    def _add(self, kind: str, row: tuple[int, ...]) -> int:
        self.structs[kind].append(row)
        return len(self.structs[kind]) - 1

    def _append(self, name: str, values: NDArray) -> int:
        """Append to a table of numbers; return the position of the first."""
        begin = sum(map(len, self.numbers[name]))
        self.numbers[name].append(values)
        return begin

    def _integers(self, kind: str, name: str) -> str:
        numbers = [str(number) for part in self.numbers[name] for number in part.tolist()]
        return f"static const {kind} {name}[] = {{\n{_lines(numbers)}}};"

    def _floats(self, name: str) -> str:
        """Write floats by their bits: exact, and shorter than hexadecimal fractions."""
        bits = [number for part in self.numbers[name] for number in part.view(np.uint32).tolist()]
        size = max(1, len(bits))
        union = f"static const union {{\n    uint32_t bits[{size}];\n    float value[{size}];\n}}"
        return f"{union} {name} = {{{{\n{_lines([f'0x{number:x}' for number in bits])}}}}};"


def _plans_text(plans: list[Plan], nodes: list[Node], items: list[int]) -> Iterator[str]:
    rows = []
    for plan in plans:
        values, steps = (f"{kind}_{plan.grid[0]}x{plan.grid[1]}" for kind in ("values", "steps"))
        yield _structs("value", values, map(Value.struct, plan.values))
        lines = []
        for kind, place, *value_numbers in plan.steps:
            node = nodes[place]
            item, activation = (0, "NOTHING") if kind == "MOVE" else (items[place], node.activation)
            slope = f"{float(np.float32(node.slope)).hex()}f"
            lines.append((kind, item, *value_numbers, activation, slope))
        yield _structs("step", steps, lines)
        sizes = (*plan.grid, plan.vectors, len(lines), plan.steps[-1].out)
        rows.append((*sizes, repr(float(plan.cost)), values, steps))
    yield _structs("plan", "plans", rows)


def _structs(kind: str, name: str, rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"    {{{', '.join(map(str, row))}}},\n" for row in rows)
    return f"static const struct {kind} {name}[] = {{\n{body or '    {0},'}}};"


def _lines(numbers: list[str], width: int = 16) -> str:
    rows = [numbers[i : i + width] for i in range(0, len(numbers), width)] or [["0"]]
    return "".join(f"{','.join(row)},\n" for row in rows)
