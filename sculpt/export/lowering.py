"""Trained networks as programs: the forward pass is traced, and every operation understood."""

import copy
import operator
from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sculpt.errors import ExportError
from sculpt.export import program as ops
from sculpt.export.program import Array, Function, Pair, Program
from sculpt.graph.trace import NotTraceableError, Shape, trace
from sculpt.models.residual_blocks import ZeroPad
from sculpt.pruning.masks import Masks, apply_masks

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
"""What does nothing when a network is evaluated."""


def lower(model: nn.Module, masks: Masks, example_inputs: Tensor) -> Program:
    """Return the program of a trained network, in float64.

    Args:
        model:
            On any device; it is not changed. Its forward pass must be traceable by torch.fx and
            consist of convolutions, linear layers, batch norms, activations, pools, additions
            and flattening.
        masks:
            Keyed by parameter name; what they prune is zero in the program.
        example_inputs:
            (N, ...), of which only the shape counts.

    Raises:
        ExportError: the forward pass cannot be traced, or has an operation that is not known.
    """
    network = masked_copy(model, masks, torch.float64)
    try:
        graph = trace(network, tuple(example_inputs.shape[1:]))
    except NotTraceableError as error:
        raise ExportError(
            "a network's forward pass must be traceable to be exported (torch.fx), but "
            f"{error}; export it as bundle, state_dict or pt2"
        ) from error
    lowering = _Lowering(dict(network.named_modules()))
    for node in graph.nodes:
        lowering.take(node)
    return Program(tuple(lowering.operations))


def masked_copy(model: nn.Module, masks: Masks, dtype: torch.dtype) -> nn.Module:
    """Return a network as it is evaluated, in a precision and on the CPU; pruned weights are 0."""
    network = copy.deepcopy(model).to("cpu", dtype).eval()
    apply_masks(network, {name: mask.cpu() for name, mask in masks.items()})
    return network


class _Lowering:
    """Turns the nodes of a graph into operations, one after the other."""

    def __init__(self, modules: dict[str, nn.Module]):
        self.operations: list[ops.Operation] = []
        self._modules = modules
        self._places: dict[fx.Node, int] = {}
        self._shared: set[int] = set()  # whose result several nodes take

    def take(self, node: fx.Node) -> None:
        """Add the operations of a node."""
        if node.op == "output":
            self._finish(node)
            return
        place = self._lower(node)
        if place is None:
            what = self._modules[str(node.target)] if node.op == "call_module" else node.target
            raise ExportError(
                "a network must consist of convolutions, linear layers, batch norms, activations, "
                f"pools, additions and flattening to be exported so, but {node.name} is "
                f"{what}; export it as bundle, state_dict or pt2"
            )
        self._places[node] = place
        if len(node.users) > 1:
            self._shared.add(place)

    def _finish(self, node: fx.Node) -> None:
        (last,) = node.args
        if not isinstance(last, fx.Node) or len(node.all_input_nodes) != 1:
            raise ExportError("a network must return one tensor of logits to be exported so")
        if self._places[last] != len(self.operations) - 1:
            raise ExportError("a network must return what it computes last to be exported so")

    def _lower(self, node: fx.Node) -> int | None:
        """Return the position of what a node gives; None if it is not known."""
        shape = node.meta["shape"]
        if node.op == "placeholder" and not self.operations:
            return self._add(ops.Input(shape, node.name))
        sources = [self._places[source] for source in node.all_input_nodes]
        if not shape or not sources:
            return None
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            return self._module(module, str(node.target), sources[0], shape)
        if node.op in ("call_function", "call_method"):
            return self._function(node, sources, shape)
        return None

    def _module(self, module: nn.Module, name: str, source: int, shape: Shape) -> int | None:
        before = self.operations[source].shape
        match module:
            case nn.Conv2d(padding_mode="zeros") if isinstance(module.padding, tuple):
                stride, padding = _pair(module.stride), _pair(module.padding)
                weight = _dense_kernel(module)
                bias = _bias(module.bias, len(weight))
                dilation = _pair(module.dilation)
                layer = ops.Conv(shape, name, source, weight, bias, stride, padding)
                return self._add(replace(layer, groups=module.groups, dilation=dilation))
            case nn.Linear() if len(before) == 1:
                weight = module.weight.detach().numpy()
                bias = _bias(module.bias, len(weight))
                return self._add(ops.Linear(shape, name, source, weight, bias))
            case nn.BatchNorm1d() | nn.BatchNorm2d() if module.running_mean is not None:
                return self._affine(ops.Affine(shape, name, source, *_scale_and_shift(module)))
            case nn.LeakyReLU():
                slope = module.negative_slope
                return self._add(ops.Activation(shape, name, source, "leaky_relu", slope))
            case nn.MaxPool2d(dilation=1 | (1, 1), return_indices=False):
                return self._pool(module, "max", name, source, shape)
            case nn.AvgPool2d(count_include_pad=True, divisor_override=None):
                return self._pool(module, "average", name, source, shape)
            case nn.AdaptiveAvgPool2d() | nn.AdaptiveMaxPool2d():
                function = "average" if isinstance(module, nn.AdaptiveAvgPool2d) else "max"
                return self._divide(function, name, source, shape)
            case nn.Flatten(start_dim=1, end_dim=-1):
                return self._flatten(name, source, shape)
            case ZeroPad():
                return self._zero_pad(module, name, source, shape)
        if isinstance(module, SAME):
            return source
        if type(module) in FUNCTIONS:
            return self._add(ops.Activation(shape, name, source, FUNCTIONS[type(module)]))
        return None

    def _function(self, node: fx.Node, sources: list[int], shape: Shape) -> int | None:
        if node.target in (operator.add, operator.iadd, torch.add, "add", "add_"):
            same = all(self.operations[source].shape == shape for source in sources)
            tensors = [argument for argument in node.args if isinstance(argument, fx.Node)]
            if len(tensors) != 2 or not same or node.kwargs:
                return None
            one, other = (self._places[tensor] for tensor in tensors)
            return self._add(ops.Add(shape, node.name, one, other))
        source, before = sources[0], self.operations[sources[0]].shape
        arguments = (*node.args[1:], *node.kwargs.values())
        if node.target in FUNCTIONS:
            return self._add(ops.Activation(shape, node.name, source, FUNCTIONS[node.target]))
        if node.target in (torch.flatten, "flatten") and arguments in ((1,), (1, -1)):
            return self._flatten(node.name, source, shape)
        if node.target in (torch.mean, "mean") and len(before) == 3 and len(shape) == 1:
            if arguments not in (((2, 3),), ([2, 3],), ((-2, -1),), ([-2, -1],)):
                return None
            pooled = self._divide("average", node.name, source, (before[0], 1, 1))
            return None if pooled is None else self._flatten(node.name, pooled, shape)
        if node.target is F.adaptive_avg_pool2d:
            return self._divide("average", node.name, source, shape)
        return None

    def _affine(self, affine: ops.Affine) -> int:
        """Let the layer before take up a scale and a shift, unless something else reads it, too."""
        layer = self.operations[affine.source]
        if not isinstance(layer, ops.Layer) or affine.source in self._shared:
            return self._add(affine)
        self.operations[affine.source] = replace(
            layer,
            weight=layer.weight * affine.scale.reshape(-1, *[1] * (layer.weight.ndim - 1)),
            bias=layer.bias * affine.scale + affine.shift,
        )
        return affine.source

    def _pool(self, module: Any, function: Any, name: str, source: int, shape: Shape) -> int:
        window, stride = _pair(module.kernel_size), _pair(module.stride)
        padding, ceil_mode = _pair(module.padding), bool(module.ceil_mode)
        return self._add(
            ops.Pool(shape, name, source, function, window, stride, padding, ceil_mode)
        )

    def _divide(self, function: Any, name: str, source: int, shape: Shape) -> int | None:
        """Pool an image into equal parts, if it can be divided so."""
        before = self.operations[source].shape
        if len(before) != 3 or any(b % a for b, a in zip(before[1:], shape[1:], strict=True)):
            return None
        window = (before[1] // shape[1], before[2] // shape[2])
        return self._add(ops.Pool(shape, name, source, function, window, window, (0, 0), False))

    def _flatten(self, name: str, source: int, shape: Shape) -> int:
        before = self.operations[source].shape
        return source if before == shape else self._add(ops.Flatten((prod(before),), name, source))

    def _zero_pad(self, module: ZeroPad, name: str, source: int, shape: Shape) -> int:
        width = self.operations[source].shape[0]
        if module.stride > 1:
            window = (module.stride, module.stride)
            pooled = (width, *shape[1:])
            source = self._add(
                ops.Pool(pooled, name, source, "average", window, window, (0, 0), True)
            )
        taken = torch.arange(shape[0])
        taken[width:] = -1
        return self._add(ops.Channels(shape, f"{name}.widened", source, taken.numpy()))

    def _add(self, operation: ops.Operation) -> int:
        self.operations.append(operation)
        return len(self.operations) - 1


def _dense_kernel(conv: nn.Conv2d) -> Array:
    """Return a convolution's weight as that of one group and without dilation, zeros between."""
    weight = conv.weight.detach()
    outputs, inputs, height, width = weight.shape
    (down, across) = _pair(conv.dilation)
    spread = weight.new_zeros(outputs, inputs, (height - 1) * down + 1, (width - 1) * across + 1)
    spread[:, :, ::down, ::across] = weight
    whole = weight.new_zeros(outputs, conv.in_channels, *spread.shape[2:])
    rows = outputs // conv.groups
    for group in range(conv.groups):
        part = slice(group * rows, (group + 1) * rows)
        whole[part, group * inputs : (group + 1) * inputs] = spread[part]
    return whole.numpy()


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
    whole = torch.zeros(width, dtype=torch.float64) if bias is None else bias.detach()
    return whole.numpy()


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
