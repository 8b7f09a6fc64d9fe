"""A program as an ONNX model whose sparse weights unpack themselves, by standard nodes.

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
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sculpt.bundle.positions import insert_fillers
from sculpt.export import program as ops
from sculpt.export.program import Array, Program, as_float32
from sculpt.version import VERSION

OPSET, IR_VERSION = 13, 7
"""Versions of ONNX 1.8 (2020): sufficient, and old runtimes can load the files."""
BATCH = "batch"
"""Name of the first dimension, which has any size."""

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
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

    def integer(self, value: int) -> str:
        """Return the name of a shared int64."""
        return self.shared(np.array(value, np.int64))

    def _unused(self, name: str) -> str:
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found


def to_onnx(program: Program, *, plain: bool = False) -> onnx.ModelProto:
    """Return a program as an ONNX model in float32, of `images` (batch, ...) to `logits`.

    Sparse weights are stored sparse, with nodes that unpack them when a runtime loads the file:
    that is smaller, and as fast in runtimes that compute constants once. `plain` stores every
    weight whole. NumericsError if a value is not finite in float32.
    """
    graph, results = Graph(), list[str]()
    add = Graph.constant if plain else add_weight
    operations = list(program.operations)
    if len(operations[-1].shape) > 1:  # logits are one row for each image
        operations.append(ops.Flatten((program.classes,), "flat", len(operations) - 1))
    for operation in operations:
        results.append(_add_operation(graph, operation, results, operations, add))
    graph.nodes[-1].output[0] = OUTPUT

    def described(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])

    weights = [layer.stored for layer in program.layers()]
    kept = sum(int(np.count_nonzero(weight)) for weight in weights)
    total = sum(weight.size for weight in weights)
    stored = "sparse ones are stored sparse, and computed once when the file is loaded"
    if plain:
        stored = "all are stored"
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            [described(INPUT, *program.input_shape)],
            [described(OUTPUT, program.classes)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sculpt",
        producer_version=VERSION,
        doc_string=f"Sparse network: {kept:,} of {total:,} weights are not zero; {stored}.",
    )


def _add_operation(
    graph: Graph,
    operation: ops.Operation,
    results: list[str],
    operations: list[ops.Operation],
    add_weight: Callable[[Graph, Values, str], str],
) -> str:
    if isinstance(operation, ops.Input):
        return INPUT
    assert not isinstance(operation, ops.Call)  # it is not lowered to for a format
    source, name = results[operation.source], operation.name
    shape = operations[operation.source].shape

    def constant(values: Array, field: str) -> str:
        values = values.reshape(-1, *[1] * (len(operation.shape) - 1))
        return graph.constant(as_float32(values, f"{name}.{field}"), f"{name}.{field}")

    match operation:
        case ops.Layer(stored=stored, bias=bias):
            weight = add_weight(graph, as_float32(stored, f"{name}.weight"), f"{name}.weight")
            given = as_float32(bias, f"{name}.bias")
            inputs = [source, weight, graph.constant(given, f"{name}.bias")]
            if not isinstance(operation, ops.Conv):
                return graph.node("Gemm", inputs, name, transB=1)
            return graph.node(
                "Conv",
                inputs,
                name,
                kernel_shape=stored.shape[2:],
                strides=operation.stride,
                pads=operation.padding * 2,
                **({"group": operation.groups} if operation.groups > 1 else {}),
                **({"dilations": operation.dilation} if max(operation.dilation) > 1 else {}),
            )
        case ops.Affine(scale=scale, shift=shift):
            scaled = [source, constant(scale, "scale")]
            product = graph.node("Mul", scaled, f"{name}.scaled")
            return graph.node("Add", [product, constant(shift, "shift")], name)
        case ops.Activation(function="relu6"):
            bounds = [graph.shared(np.array(bound, np.float32)) for bound in (0, 6)]
            return graph.node("Clip", [source, *bounds], name)
        case ops.Activation(function="leaky_relu", slope=slope):
            return graph.node("LeakyRelu", [source], name, alpha=slope)
        case ops.Activation(function=function):
            # The default constants of Selu are PyTorch's, rounded to float32.
            return graph.node(function.capitalize(), [source], name)
        case ops.Add(other=other):
            return graph.node("Add", [source, results[other]], name)
        case ops.Pool():
            return _pool(graph, operation, source, shape)
        case ops.Channels():
            return _channels(graph, operation, source, shape)
        case ops.Flatten():
            return graph.node("Flatten", [source], name, axis=1)


def _pool(graph: Graph, pool: ops.Pool, source: str, shape: tuple[int, ...]) -> str:
    """Add a pool without `ceil_mode`, which runtimes interpret differently.

    If the last window ends outside of the padded image, the lines that it lacks become padding.
    A mean counts all padding or none, so if it must count some, but not those lines, it counts all
    and the means are scaled afterwards. (A `Pad` before the pool would not do: ONNX Runtime 1.20
    fuses it into the pool, and then counts all.)
    """
    name, mean = pool.name, pool.function == "average"
    lines = zip(shape[1:], pool.shape[1:], pool.window, pool.stride, pool.padding, strict=True)
    lacking = [
        max(0, (results - 1) * stride + window - (length + 2 * padding))
        for length, results, window, stride, padding in lines
    ]
    counts_padding = mean and any(pool.padding)
    scaled = counts_padding and any(lacking)
    result = graph.node(
        "AveragePool" if mean else "MaxPool",
        [source],
        f"{name}.unscaled" if scaled else name,
        kernel_shape=pool.window,
        strides=pool.stride,
        pads=[*pool.padding, *np.add(pool.padding, lacking).tolist()],
        **({"count_include_pad": 1} if counts_padding else {}),
    )
    if not scaled:
        return result
    scales = np.ones((1, 1, *pool.shape[1:]), np.float32)
    # Only the last window of a row or a column lacks anything.
    scales[..., -1, :] *= pool.window[0] / (pool.window[0] - lacking[0])
    scales[..., :, -1] *= pool.window[1] / (pool.window[1] - lacking[1])
    return graph.node("Mul", [result, graph.constant(scales, f"{name}.scales")], name)


def _channels(graph: Graph, operation: ops.Channels, source: str, shape: tuple[int, ...]) -> str:
    """Pad channels that are taken whole and in order; else gather them, from zeros if need be."""
    name, taken, count = operation.name, operation.taken, shape[0]
    others = [0] * (len(shape) - 1)
    before = int(np.argmax(taken >= 0))
    after = len(taken) - count - before
    if after >= 0:
        around = np.full(before, -1), np.arange(count), np.full(after, -1)
        if np.array_equal(taken, np.concatenate(around)):
            pads = graph.integers(0, before, *others, 0, after, *others)
            return graph.node("Pad", [source, pads], name)
    if np.any(taken < 0):
        pads = graph.integers(0, 0, *others, 0, 1, *others)
        source = graph.node("Pad", [source, pads], f"{name}.and_zeros")
    indices = graph.constant(np.where(taken < 0, count, taken), f"{name}.taken")
    return graph.node("Gather", [source, indices], name, axis=1)


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
            return _from_bits(graph, values, name)
        case code:
            return _from_gaps(graph, values, *(short if code == "short gaps" else long), name)


def encode_gaps(
    kept: Mask, dtype: type[np.uint8] | type[np.uint16] = np.uint8
) -> tuple[Steps, Mask]:
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


def _from_gaps(graph: Graph, values: Values, steps: Steps, fillers: Mask, name: str) -> str:
    """Scatter the kept weights, and zeros for fillers, to the sums of the steps."""
    entries = np.zeros(steps.size, np.float32)
    entries[~fillers] = values[values != 0]
    gaps = graph.constant(steps, f"{name}.gaps")
    gaps = graph.node("Cast", [gaps], f"{name}.steps", to=TensorProto.INT64)
    positions = graph.node("CumSum", [gaps, graph.integer(0)], f"{name}.positions")
    zeros = _zeros(graph, (values.size,), f"{name}.zeros")
    scattered = [zeros, positions, graph.constant(entries, f"{name}.values")]
    flat = graph.node("ScatterElements", scattered, f"{name}.flat", axis=0)
    return graph.node("Reshape", [flat, graph.integers(*values.shape)], name)


def _from_bits(graph: Graph, values: Values, name: str) -> str:
    """Gather the kept weights by a running sum of the bits, and the zero before the first.

    All shapes are static, unlike those of `NonZero`.
    """
    kept = values.ravel() != 0
    packed = graph.constant(np.packbits(kept)[:, None], f"{name}.bits")
    packed = graph.node("Cast", [packed], f"{name}.bytes", to=TensorProto.INT64)
    # As in `numpy.packbits`, the first weight is the highest bit: halved until it is the lowest.
    powers = graph.shared(np.array([[128, 64, 32, 16, 8, 4, 2, 1]], np.int64))
    halved = graph.node("Div", [packed, powers], f"{name}.halved")
    bits = graph.node("Mod", [halved, graph.integer(2)], f"{name}.kept")
    bits = graph.node("Reshape", [bits, graph.integers(-1)], f"{name}.flat_kept")
    counts = graph.node("CumSum", [bits, graph.integer(0)], f"{name}.counts")
    indices = graph.node("Mul", [counts, bits], f"{name}.indices")
    if values.size % 8:
        ends = [graph.integers(0), graph.integers(values.size)]
        indices = graph.node("Slice", [indices, *ends], f"{name}.whole_indices")
    entries = graph.constant(np.append(np.float32(0), values.ravel()[kept]), f"{name}.values")
    flat = graph.node("Gather", [entries, indices], f"{name}.flat", axis=0)
    return graph.node("Reshape", [flat, graph.integers(*values.shape)], name)
