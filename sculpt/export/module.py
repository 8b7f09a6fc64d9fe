"""A program as a PyTorch module."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sculpt.export import program as ops
from sculpt.export.program import Array, Program, as_float32
from sculpt.graph.copies import cast, copy_network


@torch.no_grad()
def evaluate_program(program: Program, images: Tensor) -> Tensor:
    """Return the logits (N, classes) of images (N, ...), float32 or float64, on the CPU."""
    return to_module(program, images.dtype)(images)


def without_gradients(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Wrap a module's forward pass for inference."""
    return torch.no_grad()(module.__call__)


def to_module(program: Program, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
    """Build a program as a module in eval mode, on the CPU; float64 is not rounded.

    It gives logits (N, classes), or what its network gives if the program ends with that.

    NumericsError if a value is too large for float32.
    """
    layers = nn.Module()
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    called: dict[int, str] = {}  # names of what calls share, by identity
    for place, operation in enumerate(program.operations):
        if isinstance(operation, ops.Input):
            nodes.append(graph.placeholder("images"))
        elif isinstance(operation, ops.Call):
            inputs = zip(operation.node.all_input_nodes, operation.inputs, strict=True)
            node = graph.node_copy(operation.node, {n: nodes[at] for n, at in inputs}.__getitem__)
            nodes.append(node)
            if operation.what is not None:
                key = id(operation.what)
                if key not in called:
                    called[key] = _free_name(operation, place, layers)
                    _copy_called(operation, called[key], layers, dtype)
                node.target = called[key]
        elif isinstance(operation, ops.Add):
            terms = nodes[operation.source], nodes[operation.other]
            nodes.append(graph.call_function(operator.add, terms))
        else:
            name = _free_name(operation, place, layers)
            layers.add_module(name, _layer(operation, dtype))
            nodes.append(graph.call_module(name, (nodes[operation.source],)))
    if nodes[-1].op != "output":
        graph.output(graph.call_function(torch.flatten, (nodes[-1], 1)))
    return fx.GraphModule(layers, graph, "CompactNetwork").eval().requires_grad_(False)


def _free_name(operation: ops.Operation, place: int, layers: nn.Module) -> str:
    name = operation.name.replace(".", "_")
    return f"{name}_{place}" if hasattr(layers, name) else name


def _copy_called(call: ops.Call, name: str, layers: nn.Module, dtype: torch.dtype) -> None:
    """Copy the module that a call calls, or the tensor that it gets, to the layers."""
    assert call.what is not None
    if isinstance(call.what, nn.Module):
        own = copy_network(call.what)
        if hasattr(own, "inplace"):  # others may read what it would overwrite
            vars(own)["inplace"] = False
        layers.add_module(name, cast(own, "cpu", dtype))
        return
    holder = nn.Module()
    if isinstance(call.what, nn.Parameter):
        holder.register_parameter("own", nn.Parameter(call.what.detach().clone()))
        layers.register_parameter(name, cast(holder, "cpu", dtype).get_parameter("own"))
    else:
        holder.register_buffer("own", call.what.clone())
        layers.register_buffer(name, cast(holder, "cpu", dtype).get_buffer("own"))


class ChannelScale(nn.Module):
    """A scale for each channel, and a shift if there is one: a batch norm that was not folded."""

    scale: Tensor
    shift: Tensor | None

    def __init__(self, scale: Tensor, shift: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift if shift.any() else None)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, channels, ...) to the same shape."""
        shape = (-1, *[1] * (images.dim() - 2))
        scaled = images * self.scale.view(shape)
        return scaled if self.shift is None else scaled + self.shift.view(shape)


class TakeChannels(nn.Module):
    """Selected channels in a new order, and zeros."""

    taken: Tensor
    there: Tensor

    def __init__(self, taken: Tensor, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("taken", taken.clamp(min=0))
        self.register_buffer("there", (taken >= 0).to(dtype))

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, channels, ...) to (N, len(taken), ...)."""
        shape = (-1, *[1] * (images.dim() - 2))
        return images.index_select(1, self.taken) * self.there.view(shape)


CONVOLUTIONS: dict[tuple[type[ops.Conv], int], Any] = {
    **{(ops.Conv, n): kind for n, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1)},
    (ops.ConvTranspose, 1): nn.ConvTranspose1d,
    (ops.ConvTranspose, 2): nn.ConvTranspose2d,
    (ops.ConvTranspose, 3): nn.ConvTranspose3d,
}
"""Modules by operation and dimensions of an image."""

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "tanh": nn.Tanh, "selu": nn.SELU}


def activation(operation: ops.Activation) -> nn.Module:
    """Build an activation as a module."""
    if operation.function == "leaky_relu":
        return nn.LeakyReLU(operation.slope)
    return ACTIVATIONS[operation.function]()


def _layer(operation: ops.Operation, dtype: torch.dtype) -> nn.Module:
    def tensor(values: Array) -> Tensor:
        rounded = values if dtype == torch.float64 else as_float32(values, operation.name)
        return torch.from_numpy(np.ascontiguousarray(rounded))

    match operation:
        case ops.Layer(stored=stored, bias=bias):
            outputs, inputs = len(operation.weight), operation.inputs
            layer: nn.modules.conv._ConvNd | nn.Linear = nn.Linear(inputs, outputs, device="meta")
            if isinstance(operation, ops.Conv):
                window, steps = stored.shape[2:], (operation.stride, operation.padding)
                sizes = (inputs, outputs, window, *steps)
                rest: dict[str, Any] = {
                    "dilation": operation.dilation,
                    "groups": operation.groups,
                    "device": "meta",
                }
                if isinstance(operation, ops.ConvTranspose):
                    rest["output_padding"] = operation.output_padding
                layer = CONVOLUTIONS[type(operation), len(window)](*sizes, **rest)
            layer.weight = nn.Parameter(tensor(stored))
            layer.bias = nn.Parameter(tensor(bias)) if operation.biased or bias.any() else None
            return layer
        case ops.Affine(scale=scale, shift=shift):
            return ChannelScale(tensor(scale), tensor(shift))
        case ops.Pool(window=window, stride=stride, padding=padding):
            kind = nn.MaxPool2d if operation.function == "max" else nn.AvgPool2d
            return kind(window, stride, padding, ceil_mode=operation.ceil_mode)
        case ops.Channels(taken=taken):
            return TakeChannels(torch.from_numpy(np.ascontiguousarray(taken)), dtype)
        case ops.Flatten():
            return nn.Flatten(1)
        case ops.Activation():
            return activation(operation)
    raise TypeError(f"{type(operation).__name__} is not a layer")
