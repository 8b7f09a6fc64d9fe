"""A program as a PyTorch module."""

import operator
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, fx, nn

from sculpt.export import program as ops
from sculpt.export.program import Array, Program, as_float32


@torch.no_grad()
def evaluate_program(program: Program, images: Tensor) -> Tensor:
    """Return the logits (N, classes) of images (N, ...), float32 or float64, on the CPU."""
    return to_module(program, images.dtype)(images)


def without_gradients(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Wrap a module's forward pass for inference."""
    return torch.no_grad()(module.__call__)


def to_module(program: Program, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
    """Build a program as a module in eval mode, on the CPU; float64 is not rounded.

    NumericsError if a value is too large for float32.
    """
    layers = nn.Module()
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    for place, operation in enumerate(program.operations):
        if isinstance(operation, ops.Input):
            nodes.append(graph.placeholder("images"))
        elif isinstance(operation, ops.Add):
            terms = nodes[operation.source], nodes[operation.other]
            nodes.append(graph.call_function(operator.add, terms))
        else:
            name = operation.name.replace(".", "_")
            name = f"{name}_{place}" if hasattr(layers, name) else name
            layers.add_module(name, _layer(operation, dtype))
            nodes.append(graph.call_module(name, (nodes[operation.source],)))
    graph.output(graph.call_function(torch.flatten, (nodes[-1], 1)))
    return fx.GraphModule(layers, graph, "CompactNetwork").eval().requires_grad_(False)


class ChannelScale(nn.Module):
    """A scale and a shift for each channel: a batch norm that could not be folded."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, channels, ...) to the same shape."""
        shape = (-1, *[1] * (images.dim() - 2))
        return images * self.scale.view(shape) + self.shift.view(shape)


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
            outputs, inputs = len(stored), stored.shape[1]
            layer: nn.Conv2d | nn.Linear = nn.Linear(inputs, outputs, device="meta")
            if isinstance(operation, ops.Conv):
                window, groups = stored.shape[2:], operation.groups
                steps = operation.stride, operation.padding, operation.dilation
                layer = nn.Conv2d(inputs * groups, outputs, window, *steps, groups, device="meta")
            layer.weight = nn.Parameter(tensor(stored))
            layer.bias = nn.Parameter(tensor(bias))
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
