"""Which kept weights lie on a path from the input to the output, and how many paths there are.

The effective node-path view of pruning at initialisation. Weights are replaced by their masks
and everything between them by something linear that keeps zero at zero and positive positive;
then a connection carries a signal exactly if it is on a path, and gradients say the same of
the way back.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.errors import InputError

Masks = dict[str, Tensor]

REPLACED_BY_IDENTITY = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.ReLU,
    nn.LeakyReLU,
    nn.SELU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
)

SMALLEST_INPUT = 1e-300
"""Path counts overflow float64; starting from here leaves 608 orders of magnitude for them."""


@dataclass(frozen=True)
class Topology:
    """The effective part of a masked network."""

    nodes: int
    """Output channels of conv and linear layers that lie on a path."""
    parameters: int
    """Kept weights (not biases) that lie on a path."""
    log10_paths: float | None
    """log10 of the number of paths, pooling counted as averaging; None if there is no path, or
    more than 10^608, where float64 ends."""
    channels: dict[str, int]
    """Effective output channels of each layer, keyed by its weight's parameter name."""


class _Exists(torch.autograd.Function):
    """Positive becomes 1, forwards and backwards: whether there is a path, not how many."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return (values > 0).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient > 0).to(gradient.dtype)


def measure_topology(model: nn.Module, masks: Masks, input_shape: tuple[int, ...]) -> Topology:
    """Find the effective nodes, weights and paths of a masked network.

    Args:
        model:
            Conv and linear layers, linear operations between them, activations as modules.
        masks:
            Keyed by parameter name.
        input_shape:
            Shape of one input without its batch dimension, for example (3, 32, 32).

    Raises:
        InputError: a layer of the model is not used by its forward pass.
    """
    skeleton = _linear_skeleton(model, masks)
    device = next(skeleton.parameters()).device
    ones = torch.ones(1, *input_shape, device=device, dtype=torch.float64)

    with torch.no_grad():
        paths = float(skeleton(ones * SMALLEST_INPUT).sum())
    layers = {
        name: layer
        for name, layer in skeleton.named_modules()
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)
    }
    hooks = [
        layer.register_forward_hook(lambda _, __, output: _Exists.apply(output))
        for layer in layers.values()
    ]
    weights = {
        f"{name}.weight" if name else "weight": layer.weight for name, layer in layers.items()
    }
    gradients = torch.autograd.grad(skeleton(ones).sum(), list(weights.values()), allow_unused=True)
    for hook in hooks:
        hook.remove()

    channels, parameters = {}, 0
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        if gradient is None:
            raise InputError(
                f"every conv and linear layer must be used in the forward pass, but {name} is not;"
                " remove the layer from the network"
            )
        effective = (gradient > 0) & (weight > 0)
        parameters += int(effective.sum())
        channels[name] = int(effective.flatten(1).any(1).sum())
    countable = 0 < paths < math.inf
    log10_paths = math.log10(paths) - math.log10(SMALLEST_INPUT) if countable else None
    return Topology(sum(channels.values()), parameters, log10_paths, channels)


def _linear_skeleton(model: nn.Module, masks: Masks) -> nn.Module:
    """Return a float64 copy with masks as weights, no biases, and nothing non-linear."""
    skeleton = copy.deepcopy(model).double().eval()
    for module in list(skeleton.modules()):
        # Not named_children(): it names an activation that is used twice only once.
        for name, child in list(module._modules.items()):
            if isinstance(child, REPLACED_BY_IDENTITY):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                # A maximum passes one path and hides the others; an average passes all.
                average = nn.AvgPool2d(
                    child.kernel_size, child.stride, child.padding, child.ceil_mode
                )
                setattr(module, name, average)
    for name, parameter in skeleton.named_parameters():
        parameter.data = masks[name].to(parameter) if name.endswith("weight") else parameter * 0
    return skeleton
