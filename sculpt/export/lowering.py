"""Lowering a trained network to a program: its forward pass is traced, batch norms are folded."""

import copy
import operator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sculpt.diagnostics.layers import Masks, check_applied
from sculpt.errors import ExportError
from sculpt.export import program as ops
from sculpt.export.program import Array, Function, Pair, Program
from sculpt.graph.trace import NotTraceableError, Shape, trace
from sculpt.models.residual_blocks import ZeroPad

FUNCTIONS: dict[Any, Function] = {
    nn.ReLU: "relu",
    F.relu: "relu",
    torch.relu: "relu",
    "relu": "relu",
    nn.ReLU6: "relu6",
    nn.Tanh: "tanh",
    torch.tanh: "tanh",
    "tanh": "tanh",
    nn.SELU: "selu",
}
SAME = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
"""Modules that do nothing in evaluation."""
OVER_IMAGE = (((2, 3),), ([2, 3],), ((-2, -1),), ([-2, -1],))
"""Arguments of a mean over the pixels of an image."""

Place = tuple[Shape, str, int]
"""Shape, name and source of an operation."""


def lower(model: nn.Module, masks: Masks, example_inputs: Tensor) -> Program:
    """Lower a trained network, see `sculpt.compact`, to a program in float64.

    Only the shape of the inputs, (N, ...), counts. ExportError if the forward pass cannot be
    traced, or has an unknown operation.
    """
    network = masked_copy(model, masks, torch.float64)
    try:
        graph = trace(network, tuple(example_inputs.shape[1:]))
    except NotTraceableError as error:
        raise ExportError(
            "a network's forward pass must be traceable to be exported (torch.fx), but "
            f"{error}; export it as bundle, state_dict or pt2"
        ) from error
    modules = dict(network.named_modules())
    operations: list[ops.Operation] = []
    places: dict[fx.Node, int] = {}
    shared: set[int] = set()  # positions of results that several nodes take
    for node in graph.nodes:
        if node.op == "output":
            (result,) = node.args
            if not isinstance(result, fx.Node) or len(node.all_input_nodes) != 1:
                raise ExportError("a network must return one tensor of logits for this format")
            if places[result] != len(operations) - 1:
                raise ExportError(
                    "a network must return the result of its last operation for this format"
                )
        elif node.op == "placeholder" and not operations:
            operations.append(ops.Input(node.meta["shape"], node.name))
            places[node] = 0
        else:
            what = modules[node.target] if node.op == "call_module" else node.target
            sources = [places[source] for source in node.all_input_nodes]
            lowered = _lowered(node, what, sources)
            if lowered is None:
                raise ExportError(
                    "a network must consist of convolutions, linear layers, batch norms, "
                    "activations, pools, additions and flattening for this format, but "
                    f"{node.name} is {what}; export it as bundle, state_dict or pt2"
                )
            places[node] = _append(operations, lowered, sources[0], shared)
        if len(node.users) > 1:
            shared.add(places[node])
    return Program(tuple(operations))


def masked_copy(model: nn.Module, masks: Masks, dtype: torch.dtype) -> nn.Module:
    """Copy a network in eval mode, on the CPU; InputError if its pruned weights are not 0."""
    check_applied(model, masks)
    return copy.deepcopy(model).to("cpu", dtype).eval()


def _append(
    operations: list[ops.Operation], more: list[ops.Computed], place: int, shared: set[int]
) -> int:
    """Append a chain of operations to the result at `place`; return the position of the last.

    A scale and a shift are folded into the layer before, unless something else reads it, too.
    """
    for operation in more:
        layer = operations[place]
        if (
            isinstance(operation, ops.Affine)
            and isinstance(layer, ops.Conv | ops.Linear)
            and place not in shared
        ):
            operations[place] = replace(
                layer,
                weight=layer.weight * operation.scale.reshape(-1, *[1] * (layer.weight.ndim - 1)),
                bias=layer.bias * operation.scale + operation.shift,
            )
        else:
            operations.append(replace(operation, source=place))
            place = len(operations) - 1
    return place


def _lowered(node: fx.Node, what: Any, sources: list[int]) -> list[ops.Computed] | None:
    """Return the operations of a node that calls a module, function or method (its name) as a
    chain; None if it is unknown."""
    shape: Shape = node.meta["shape"]
    if not shape or not sources:
        return None
    before: Shape = node.all_input_nodes[0].meta["shape"]
    arguments = (*node.args[1:], *node.kwargs.values())
    is_module = isinstance(what, nn.Module)
    at = (shape, str(node.target) if is_module else node.name, sources[0])
    match what:
        case nn.Conv2d(padding_mode="zeros", padding=tuple()) as conv:
            weight = _whole_kernel(conv)
            bias, dilation = _bias(conv.bias, len(weight)), _pair(conv.dilation)
            stride, padding = _pair(conv.stride), _pair(conv.padding)
            return [ops.Conv(*at, weight, bias, stride, padding, conv.groups, dilation)]
        case nn.Linear() as linear if len(before) == 1:
            weight = linear.weight.detach().numpy()
            return [ops.Linear(*at, weight, _bias(linear.bias, len(weight)))]
        case nn.BatchNorm1d() | nn.BatchNorm2d() as norm if norm.running_mean is not None:
            return [ops.Affine(*at, *_scale_and_shift(norm))]
        case nn.LeakyReLU(negative_slope=slope):
            return [ops.Activation(*at, "leaky_relu", slope)]
        case (
            nn.MaxPool2d(dilation=1 | (1, 1), return_indices=False)
            | nn.AvgPool2d(count_include_pad=True, divisor_override=None)
        ) as pool:
            function: Literal["max", "average"] = "average"
            if isinstance(pool, nn.MaxPool2d):
                function = "max"
            window, steps = _pair(pool.kernel_size), _pair(pool.stride)
            return [ops.Pool(*at, function, window, steps, _pair(pool.padding), pool.ceil_mode)]
        case nn.AdaptiveMaxPool2d() if _divides(before, shape):
            return [_equal_parts("max", at, before)]
        case nn.AdaptiveAvgPool2d() | F.adaptive_avg_pool2d if _divides(before, shape):
            return [_equal_parts("average", at, before)]
        case torch.mean | "mean" if len(before) == 3 and arguments in OVER_IMAGE:
            pooled = _equal_parts("average", ((before[0], 1, 1), *at[1:]), before)
            return [pooled, ops.Flatten(*at)]
        case nn.Flatten(start_dim=1, end_dim=-1):
            return [ops.Flatten(*at)] if before != shape else []
        case torch.flatten | "flatten" if arguments in ((1,), (1, -1)):
            return [ops.Flatten(*at)] if before != shape else []
        case operator.add | operator.iadd | torch.add | "add" | "add_" if _is_sum(node):
            return [ops.Add(*at, sources[-1])]
        case ZeroPad(stride=stride):
            channels = np.arange(shape[0])
            taken = np.where(channels < before[0], channels, -1)
            widened = ops.Channels(shape, f"{at[1]}.widened", at[2], taken)
            if stride == 1:
                return [widened]
            # The strides of a shortcut without parameters are a pool; see `ZeroPad`.
            shape, window = (before[0], *shape[1:]), (stride, stride)
            strides = ops.Pool(shape, *at[1:], "average", window, window, (0, 0), ceil_mode=True)
            return [strides, widened]
    if isinstance(what, SAME):
        return []
    known = FUNCTIONS.get(type(what) if is_module else what)
    return None if known is None else [ops.Activation(*at, known)]


def _is_sum(node: fx.Node) -> bool:
    """Whether an addition is of two results of one shape, without a factor."""
    shapes = [given.meta["shape"] for given in node.args if isinstance(given, fx.Node)]
    return shapes == [node.meta["shape"]] * 2 and not node.kwargs


def _divides(before: Shape, after: Shape) -> bool:
    """Whether an image can be cut into equal parts, one for each pixel of the result."""
    return len(before) == 3 and not any(b % a for b, a in zip(before[1:], after[1:], strict=True))


def _equal_parts(function: Any, at: Place, before: Shape) -> ops.Pool:
    window = (before[1] // at[0][1], before[2] // at[0][2])
    return ops.Pool(*at, function, window, window, (0, 0), ceil_mode=False)


def _whole_kernel(conv: nn.Conv2d) -> Array:
    """Return a convolution's weight as one group without dilation, with zeros between."""
    weight = conv.weight.detach().unflatten(0, (conv.groups, -1))
    groups, rows, columns, height, width = weight.shape
    down, across = _pair(conv.dilation)
    window = (height - 1) * down + 1, (width - 1) * across + 1
    whole = weight.new_zeros(groups, rows, groups, columns, *window)
    for group in range(groups):
        whole[group, :, group, :, ::down, ::across] = weight[group]
    return whole.flatten(0, 1).flatten(1, 2).numpy()


def _scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Array, Array]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = 1 / torch.sqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach()
    return scale.numpy(), shift.numpy()


def _bias(bias: Tensor | None, width: int) -> Array:
    return np.zeros(width) if bias is None else bias.detach().numpy()


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
