"""A trained sparse network as a smaller one of PyTorch's own layers that computes the same."""

import operator

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import skip_init

from sculpt.export.certificate import certify
from sculpt.export.condensing import condense
from sculpt.export.lowering import lower
from sculpt.export.program import (
    Activation,
    Add,
    Affine,
    Array,
    Channels,
    Conv,
    Flatten,
    Input,
    Linear,
    Operation,
    Pool,
    Program,
)
from sculpt.export.rounding import as_float32
from sculpt.pruning.masks import Masks


def compact(model: nn.Module, masks: Masks, example_inputs: Tensor) -> fx.GraphModule:
    """Return a smaller network that computes what a trained, masked one does.

    Channels that no path of kept weights uses are gone, and batch norms are part of the layers
    before them; among the weights that stay there are still zeros. It is for inference: float32,
    on the CPU, in eval mode. Before it is rounded to float32 it is compared with the network in
    float64, on the example inputs, to 1e-10 of the largest logit.

    Args:
        model:
            Trained, on any device; it is not changed. Its forward pass must be traceable by
            torch.fx and consist of convolutions, linear layers, batch norms, activations, pools,
            additions and flattening.
        masks:
            Keyed by parameter name.
        example_inputs:
            (N, ...), real images or noise.

    Returns:
        Layers of `torch.nn`, and a forward pass that calls them, from images (N, ...) to logits
        (N, classes).

    Raises:
        InputError: the masks do not fit the model.
        ExportError: the forward pass cannot be traced, has an operation that is not known, or
            what comes out would compute something else.
    """
    program = condense(lower(model, masks, example_inputs))
    certify(model, masks, program, example_inputs)
    return to_module(program)


def to_module(program: Program) -> fx.GraphModule:
    """Return a program as a module in float32 and eval mode.

    Raises:
        NumericsError: a value is too large for float32.
    """
    layers = nn.Module()
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    for place, operation in enumerate(program.operations):
        if isinstance(operation, Input):
            nodes.append(graph.placeholder("images"))
        elif isinstance(operation, Add):
            terms = nodes[operation.source], nodes[operation.other]
            nodes.append(graph.call_function(operator.add, terms))
        else:
            name = operation.name.replace(".", "_")
            name = f"{name}_{place}" if hasattr(layers, name) else name
            layers.add_module(name, _layer(operation))
            nodes.append(graph.call_module(name, (nodes[operation.source],)))
    graph.output(graph.call_function(torch.flatten, (nodes[-1], 1)))
    return fx.GraphModule(layers, graph, "CompactNetwork").eval().requires_grad_(False)


class ChannelScale(nn.Module):
    """A scale and a shift for each channel: a batch norm that no layer before it takes up."""

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
    """Some channels in a new order, and zeros."""

    taken: Tensor
    there: Tensor

    def __init__(self, taken: Tensor):
        super().__init__()
        self.register_buffer("taken", taken.clamp(min=0))
        self.register_buffer("there", (taken >= 0).float())

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, channels, ...) to (N, len(taken), ...)."""
        shape = (-1, *[1] * (images.dim() - 2))
        return images.index_select(1, self.taken) * self.there.view(shape)


def _layer(operation: Operation) -> nn.Module:
    match operation:
        case Conv(weight=weight, stride=stride, padding=padding):
            outputs, inputs, *window = weight.shape
            conv = skip_init(nn.Conv2d, inputs, outputs, window, stride=stride, padding=padding)
            return _filled(conv, operation)
        case Linear(weight=weight):
            outputs, inputs = weight.shape
            return _filled(skip_init(nn.Linear, inputs, outputs), operation)
        case Affine(scale=scale, shift=shift, name=name):
            return ChannelScale(_tensor(scale, name), _tensor(shift, name))
        case Pool(function="max", window=window, stride=stride, padding=padding):
            return nn.MaxPool2d(window, stride, padding, ceil_mode=operation.ceil_mode)
        case Pool(window=window, stride=stride, padding=padding):
            return nn.AvgPool2d(window, stride, padding, ceil_mode=operation.ceil_mode)
        case Channels(taken=taken):
            return TakeChannels(torch.from_numpy(np.ascontiguousarray(taken)))
        case Flatten():
            return nn.Flatten(1)
        case Activation(function="leaky_relu", slope=slope):
            return nn.LeakyReLU(slope)
        case Activation(function=function):
            kinds = {"relu": nn.ReLU, "relu6": nn.ReLU6, "tanh": nn.Tanh, "selu": nn.SELU}
            return kinds[function]()
    raise TypeError(f"{type(operation).__name__} is no layer")


def _filled(layer: nn.Conv2d | nn.Linear, operation: Conv | Linear) -> nn.Module:
    assert layer.bias is not None
    layer.weight.data.copy_(_tensor(operation.weight, operation.name))
    layer.bias.data.copy_(_tensor(operation.bias, operation.name))
    return layer


def _tensor(values: Array, name: str) -> Tensor:
    return torch.from_numpy(as_float32(values, name))
