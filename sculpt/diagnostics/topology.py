"""Effective topology: kept weights on paths from the input to the output, and the paths' number.

The effective node-path view of pruning at initialisation. Weights are replaced by their masks
and all other operations by linear ones that keep zero at zero and positive positive; then a
connection carries a signal exactly if it can be reached from the input, and a gradient exactly
if it reaches the output.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.diagnostics.extended_range import ExtendedRange
from sculpt.diagnostics.layers import Masks, weighted_layers
from sculpt.errors import InputError

REPLACED_BY_IDENTITY = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.dropout._DropoutNd,
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.SELU,
    nn.ELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Hardsigmoid,
)
"""Normalisations, activations and dropout: they pass signals on element by element."""


@dataclass(frozen=True)
class Topology:
    """The effective part of a masked network."""

    nodes: int
    """Output channels of conv and linear layers that lie on a path."""
    parameters: int
    """Kept weights (not biases) that lie on a path."""
    log10_paths: float | None
    """log10 of the number of paths, pooling counted as averaging; None if there is no path."""
    channels: dict[str, int]
    """Effective output channels of each layer, keyed by its weight's parameter name."""
    effective: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """Bool, keyed by parameter name: kept weights on a path, and kept biases of channels on one.
    On the model's device."""
    reachable: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """Bool, keyed by parameter name: positions, kept or not, that lie on a path if kept, and
    biases of channels on a path."""


class _Exists(torch.autograd.Function):
    """Maps positive to 1, forwards and backwards: whether there is a path, not how many."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return (values > 0).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient > 0).to(gradient.dtype)


def measure_topology(model: nn.Module, masks: Masks, input_shape: tuple[int, ...]) -> Topology:
    """Find the effective nodes, weights and paths of a masked network.

    Args:
        model: Conv and linear layers, linear operations between them, activations as modules.
        masks: Keyed by parameter name.
        input_shape: Shape of one input without its batch dimension, for example (3, 32, 32).

    Raises:
        InputError: a layer of the model is not used by its forward pass.
    """
    skeleton = linear_skeleton(model, masks)
    ones = torch.ones(
        1, *input_shape, device=next(skeleton.parameters()).device, dtype=torch.float64
    )
    with torch.no_grad():
        log10_paths = skeleton(ExtendedRange.of(ones)).sum().log10()

    reachable, effective, channels, parameters = {}, {}, {}, 0
    for name, positions in _find_reachable(skeleton, ones).items():
        reachable[name] = positions
        effective[name] = positions & masks[name].to(positions.device)
        on_a_path = effective[name].flatten(1).any(1)
        parameters += int(effective[name].sum())
        channels[name] = int(on_a_path.sum())
        bias = name.removesuffix("weight") + "bias"
        if bias in masks:
            reachable[bias] = on_a_path
            effective[bias] = on_a_path & masks[bias].to(on_a_path.device)
    return Topology(sum(channels.values()), parameters, log10_paths, channels, effective, reachable)


def _find_reachable(skeleton: nn.Module, ones: Tensor) -> dict[str, Tensor]:
    """Find the positions on paths, by one forward and one backward pass."""
    if ones.device.type == "cpu":
        # 2.5 times as fast; only zero or not matters, and between two layers float32 cannot
        # overflow. On a GPU, float32 may use transforms (Winograd, Fourier) that turn zeros into
        # rounding errors.
        skeleton, ones = skeleton.float(), ones.float()
    layers = weighted_layers(skeleton)
    for layer in layers.values():
        layer.register_forward_hook(lambda _, __, output: _Exists.apply(output))
    weights = [layer.weight for layer in layers.values()]
    gradients = torch.autograd.grad(skeleton(ones).sum(), weights, allow_unused=True)
    for name, gradient in zip(layers, gradients, strict=True):
        if gradient is None:
            raise InputError(
                f"every conv and linear layer must be used in the forward pass, but {name} is not;"
                " remove the layer from the network"
            )
    return {name: gradient > 0 for name, gradient in zip(layers, gradients, strict=True)}


def linear_skeleton(model: nn.Module, masks: Masks) -> nn.Module:
    """Make a linear float64 copy with masks as weights and no biases.

    Normalisations, activations and dropout become identities, and maximum pooling becomes
    average pooling; functions in the model's forward pass stay. The model is not changed, and
    masks of biases are not used.
    """
    # deepcopy takes tensors in its memo as copied already, so it copies no weight.
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.zeros_like(parameter, dtype=torch.float64))
        for parameter in model.parameters()
    }
    for name, layer in weighted_layers(model).items():
        memo[id(layer.weight)] = nn.Parameter(masks[name].to(layer.weight.device, torch.float64))
    skeleton = copy.deepcopy(model, memo).double().eval()
    remove_nonlinear(skeleton)
    for module in list(skeleton.modules()):
        for name, child in list(module._modules.items()):
            if isinstance(child, nn.MaxPool2d):
                # A maximum passes one path and hides the others; an average passes all.
                average = nn.AvgPool2d(
                    child.kernel_size, child.stride, child.padding, child.ceil_mode
                )
                setattr(module, name, average)
    return skeleton


def remove_nonlinear(network: nn.Module) -> None:
    """Replace all normalisations, activations and dropout by identities, in place.

    Only modules can be replaced: a `torch.tanh` inside a `forward` stays.
    """
    for module in list(network.modules()):
        # Not named_children(), which lists an activation that is used twice only once.
        for name, child in list(module._modules.items()):
            if isinstance(child, REPLACED_BY_IDENTITY):
                setattr(module, name, nn.Identity())
