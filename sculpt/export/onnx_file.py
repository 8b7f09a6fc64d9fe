"""A program as an ONNX model whose sparse weights unpack themselves."""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import onnx
from onnx import TensorProto, helper

from sculpt.export import program as ops
from sculpt.export.onnx_graph import INPUT, OUTPUT, Graph, Values, add_weight
from sculpt.export.program import Program, as_float32

AddWeight = Callable[[Graph, Values, str], str]

OPSET, IR_VERSION = 13, 7
"""Versions of ONNX 1.8 (2020): sufficient, and old runtimes can load the files."""
BATCH = "batch"
"""Name of the first dimension, which has any size."""


def to_onnx(program: Program, *, plain: bool = False) -> onnx.ModelProto:
    """Return a program as an ONNX model in float32, of `images` (batch, ...) to `logits`.

    Args:
        program: At least one operation follows its input.
        plain: Store every weight whole, with its zeros. Otherwise sparse weights are stored sparse,
            with nodes that unpack them when a runtime loads the file: smaller, and as fast in
            runtimes that compute constants once.

    Raises:
        NumericsError: a value is not finite in float32.
    """
    graph = Graph()
    weight = Graph.constant if plain else add_weight
    results: list[str] = []
    whole = _flat(program)
    for operation in whole.operations:
        results.append(_add_operation(graph, operation, results, whole, weight))
    graph.nodes[-1].output[0] = OUTPUT
    images: list[str | int | None] = [BATCH, *program.input_shape]
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, images)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, program.classes])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sculpt",
        producer_version=version("sculpt"),
        doc_string=_description(program, plain=plain),
    )


def _flat(program: Program) -> Program:
    """Flatten the result of a program to one row of logits for each image."""
    last = program.operations[-1]
    if len(last.shape) == 1:
        return program
    row = ops.Flatten((program.classes,), "flat", len(program.operations) - 1)
    return Program((*program.operations, row))


def _description(program: Program, *, plain: bool) -> str:
    weights = [layer.stored for layer in program.layers()]
    kept = sum(int(np.count_nonzero(weight)) for weight in weights)
    stored = (
        "all are stored"
        if plain
        else "sparse ones are stored sparse, and computed once when the file is loaded"
    )
    return (
        f"Sparse network: {kept:,} of {sum(weight.size for weight in weights):,} weights are not "
        f"zero; {stored}."
    )


def _add_operation(
    graph: Graph, operation: ops.Operation, results: list[str], program: Program, weight: AddWeight
) -> str:
    if isinstance(operation, ops.Input):
        return INPUT
    source, name = results[operation.source], operation.name
    match operation:
        case ops.Layer():
            return _layer(graph, operation, source, weight)
        case ops.Affine(scale=scale, shift=shift):
            shape = (-1, *[1] * (len(operation.shape) - 1))
            factor = as_float32(scale, f"{name}.scale").reshape(shape)
            term = as_float32(shift, f"{name}.shift").reshape(shape)
            scaled = [source, graph.constant(factor, f"{name}.scale")]
            product = graph.node("Mul", scaled, f"{name}.scaled")
            return graph.node("Add", [product, graph.constant(term, f"{name}.shift")], name)
        case ops.Activation():
            return _activation(graph, operation, source)
        case ops.Add(other=other):
            return graph.node("Add", [source, results[other]], name)
        case ops.Pool():
            return _pool(graph, operation, source, program.operations[operation.source].shape)
        case ops.Channels():
            return _channels(graph, operation, source, program.operations[operation.source].shape)
        case ops.Flatten():
            return graph.node("Flatten", [source], name, axis=1)


def _layer(graph: Graph, layer: ops.Layer, source: str, weight: AddWeight) -> str:
    name = layer.name
    inputs = [
        source,
        weight(graph, as_float32(layer.stored, f"{name}.weight"), f"{name}.weight"),
        graph.constant(as_float32(layer.bias, f"{name}.bias"), f"{name}.bias"),
    ]
    if not isinstance(layer, ops.Conv):
        return graph.node("Gemm", inputs, name, transB=1)
    return graph.node(
        "Conv",
        inputs,
        name,
        kernel_shape=layer.stored.shape[2:],
        strides=layer.stride,
        pads=[*layer.padding, *layer.padding],
        **({"group": layer.groups} if layer.groups > 1 else {}),
        **({"dilations": layer.dilation} if max(layer.dilation) > 1 else {}),
    )


def _activation(graph: Graph, operation: ops.Activation, source: str) -> str:
    name = operation.name
    match operation.function:
        case "relu6":
            bounds = [graph.shared(np.array(bound, np.float32)) for bound in (0, 6)]
            return graph.node("Clip", [source, *bounds], name)
        case "leaky_relu":
            return graph.node("LeakyRelu", [source], name, alpha=operation.slope)
        case function:
            # The default constants of Selu are PyTorch's, rounded to float32.
            return graph.node(function.capitalize(), [source], name)


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
    result = graph.node(
        "AveragePool" if mean else "MaxPool",
        [source],
        f"{name}.unscaled" if counts_padding and any(lacking) else name,
        kernel_shape=pool.window,
        strides=pool.stride,
        pads=[*pool.padding, *np.add(pool.padding, lacking).tolist()],
        **({"count_include_pad": 1} if counts_padding else {}),
    )
    if not (counts_padding and any(lacking)):
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
