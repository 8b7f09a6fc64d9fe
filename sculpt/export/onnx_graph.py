"""An ONNX graph under construction, and its sparse weights, which standard nodes unpack.

A runtime computes the weights once, from constants, when it loads the file. Each weight has the
code that needs the fewest bytes; at every density that is less than a fifth above the information
in the kept weights and their positions.

- whole: 4 bytes a weight, kept or not. Best when nearly all are kept.
- bits: a bit for each weight, 4 bytes for each kept one.
- gaps: one or two bytes and 4 bytes for each kept weight and each filler, see `encode_gaps`.
  Two bytes are for densities below about 0.008, where fillers of one byte would be many.
- nothing: all are pruned.
"""

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sculpt.bundle.positions import insert_fillers

Values = NDArray[np.float32]
Steps = NDArray[np.uint8 | np.uint16]

INPUT, OUTPUT = "images", "logits"

UNPACKING_BYTES = 500
"""Approximate size of the nodes that unpack a weight: small weights are cheaper whole."""


class Graph:
    """Collects nodes, in order of execution, and constants under unique names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names = {INPUT, OUTPUT}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an ONNX operation, and return the name of its result."""
        output = self._unused(name)
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, values: NDArray[Any], name: str) -> str:
        """Add an array, and return its name."""
        name = self._unused(name)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def shared(self, values: NDArray[Any]) -> str:
        """Return the name of a small array that the graph stores once."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant(values, f"constant_{len(self._shared)}")
        return self._shared[key]

    def integers(self, *values: int) -> str:
        """Return the name of a shared list of int64: shapes, paddings and the like."""
        return self.shared(np.array(values, np.int64))

    def _unused(self, name: str) -> str:
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found


def add_weight(graph: Graph, values: Values, name: str) -> str:
    """Add a weight in the code that takes the fewest bytes, and return the name of its result."""
    kept = values.ravel() != 0
    if not kept.any():
        return _zeros(graph, values.shape, name)
    kept_bytes = 4 * int(np.count_nonzero(kept))
    short, long = encode_gaps(kept, np.uint8), encode_gaps(kept, np.uint16)
    sizes = {
        "whole": values.nbytes,
        "bits": UNPACKING_BYTES + math.ceil(kept.size / 8) + kept_bytes,
        "short gaps": UNPACKING_BYTES + (1 + 4) * short[0].size,
        "long gaps": UNPACKING_BYTES + (2 + 4) * long[0].size,
    }
    match min(sizes, key=lambda code: sizes[code]):
        case "whole":
            return graph.constant(values, name)
        case "bits":
            return _from_bits(graph, values, kept, name)
        case "short gaps":
            return _from_gaps(graph, values, kept, *short, name)
        case _:
            return _from_gaps(graph, values, kept, *long, name)


def encode_gaps(
    kept: NDArray[np.bool_], dtype: type[np.uint8] | type[np.uint16] = np.uint8
) -> tuple[Steps, NDArray[np.bool_]]:
    """Encode a flat mask, (N,), as steps between entries; return them, and a mask of the fillers.

    Where kept entries lie farther apart than a step's type allows, entries for pruned weights fill
    the gap. `numpy.cumsum(steps)` are the distinct positions of all entries, and
    `numpy.cumsum(steps)[~fillers]` those of the kept ones.
    """
    largest = np.iinfo(dtype).max
    # The first is counted from 0 and may be 0; all others are at least 1.
    distances = np.diff(np.flatnonzero(kept), prepend=0)
    counts = np.maximum(distances - 1, 0) // largest
    steps, fillers = insert_fillers(distances - counts * largest, counts, largest)
    return steps.astype(dtype), fillers


def _zeros(graph: Graph, shape: tuple[int, ...], name: str) -> str:
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    return graph.node("ConstantOfShape", [graph.integers(*shape)], name, value=zero)


def _from_gaps(
    graph: Graph,
    values: Values,
    kept: NDArray[np.bool_],
    steps: Steps,
    fillers: NDArray[np.bool_],
    name: str,
) -> str:
    """Scatter the kept weights, and zeros for fillers, to the sums of the steps."""
    entries = np.zeros(steps.size, np.float32)
    entries[~fillers] = values.ravel()[kept]
    gaps = graph.constant(steps, f"{name}.gaps")
    gaps = graph.node("Cast", [gaps], f"{name}.steps", to=TensorProto.INT64)
    positions = graph.node("CumSum", [gaps, _first_axis(graph)], f"{name}.positions")
    flat = graph.node(
        "ScatterElements",
        [
            _zeros(graph, (values.size,), f"{name}.zeros"),
            positions,
            graph.constant(entries, f"{name}.values"),
        ],
        f"{name}.flat",
        axis=0,
    )
    return graph.node("Reshape", [flat, graph.integers(*values.shape)], name)


def _from_bits(graph: Graph, values: Values, kept: NDArray[np.bool_], name: str) -> str:
    """Gather the kept weights by a running sum of the bits, and the zero before the first.

    All shapes are static, unlike those of `NonZero`.
    """
    bytes_ = graph.constant(np.packbits(kept)[:, None], f"{name}.bits")
    bytes_ = graph.node("Cast", [bytes_], f"{name}.bytes", to=TensorProto.INT64)
    # As in `numpy.packbits`, the first weight is the highest bit: halved until it is the lowest.
    powers = graph.shared(np.array([[128, 64, 32, 16, 8, 4, 2, 1]], np.int64))
    halved = graph.node("Div", [bytes_, powers], f"{name}.halved")
    bits = graph.node("Mod", [halved, graph.shared(np.array(2, np.int64))], f"{name}.kept")
    bits = graph.node("Reshape", [bits, graph.integers(-1)], f"{name}.flat_kept")
    counts = graph.node("CumSum", [bits, _first_axis(graph)], f"{name}.counts")
    indices = graph.node("Mul", [counts, bits], f"{name}.indices")
    if values.size % 8:
        ends = [graph.integers(0), graph.integers(values.size)]
        indices = graph.node("Slice", [indices, *ends], f"{name}.whole_indices")
    entries = np.concatenate([np.zeros(1, np.float32), values.ravel()[kept]])
    flat = graph.node(
        "Gather", [graph.constant(entries, f"{name}.values"), indices], f"{name}.flat", axis=0
    )
    return graph.node("Reshape", [flat, graph.integers(*values.shape)], name)


def _first_axis(graph: Graph) -> str:
    return graph.shared(np.array(0, np.int64))
