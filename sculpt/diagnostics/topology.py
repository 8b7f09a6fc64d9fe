"""Effective topology: kept weights on paths from the input to the output, and the paths' number.

The effective node-path view of pruning at initialisation. Weights are replaced by their masks,
and a `Signal` walks through the network; then a connection carries a signal exactly if it can be
reached from the input, and a gradient exactly if it reaches the output.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import InputShape, call, logits_of, ones_like_inputs
from sculpt.diagnostics.extended_range import ExtendedRange
from sculpt.diagnostics.layers import (
    Masks,
    by_output,
    dense_masks,
    weighted_layers,
    weighted_parameters,
    weights_of,
)
from sculpt.diagnostics.signal import Signal
from sculpt.errors import InputError
from sculpt.graph.copies import copy_network


@dataclass(frozen=True)
class Topology:
    """The effective part of a masked network."""

    nodes: int
    """Output channels of conv and linear layers that lie on a path."""
    parameters: int
    """Kept weights (not biases) that lie on a path."""
    log10_paths: float | None
    """log10 of the number of paths; None if there is no path. Pooling counts as averaging, and
    constant factors by their size (but parameters of the network as 1)."""
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


class Existence(Signal):
    """A signal that is 1 where there is a path: numbers of paths would overflow float32."""

    def after_a_product(self) -> "Existence":
        """Return the signal that goes on after a layer or another product."""
        return Existence.of(_Exists.apply(self.sole))


def measure_topology(model: nn.Module, masks: Masks, input_shape: InputShape) -> Topology:
    """Find the effective nodes, weights and paths of a masked network.

    Args:
        model: Conv and linear layers, and between them what a `Signal` passes: linear operations,
            activations, norms, pools.
        masks: Keyed by parameter name.
        input_shape: Of one input. Paths begin at floats and at what embeddings return.

    Nothing of a layer that the forward pass does not use lies on a path.

    Raises:
        InputError: the forward pass applies what no path can be followed through; the message
            names it.
    """
    masks = dense_masks(model) | masks  # what has none is frozen
    skeleton = linear_skeleton(model, masks)
    device = next(skeleton.parameters()).device
    with torch.no_grad():
        total: Any = follow(skeleton, input_shape, device, ExtendedRange.of).sum()

    log10_paths = total.log10()
    owners, layers = weights_of(model), weighted_layers(model)
    positions = _find_reachable(skeleton, input_shape, device)
    rows = {
        name: by_output(layers[name], where & masks[name].to(device)).flatten(1).any(1)
        for name, where in positions.items()
    }
    reachable = {name: positions.get(name, rows[weight]) for name, weight in owners.items()}
    effective = {name: where & masks[name].to(device) for name, where in reachable.items()}
    channels = {name: int(row.sum()) for name, row in rows.items()}
    parameters = sum(int(effective[name].sum()) for name in positions)
    return Topology(sum(channels.values()), parameters, log10_paths, channels, effective, reachable)


def follow(
    network: nn.Module, shape: InputShape, device: torch.device, signal: Callable[[Tensor], Any]
) -> Any:
    """Follow signals through a network to its logits; a signal is made of ones.

    They begin at inputs that are floats, and at what embeddings return.

    Raises:
        InputError: no signal arrives, or the network applies what none passes.
    """
    dtype = next(network.parameters()).dtype

    def begin(module: nn.Module, inputs: Any, output: Any) -> Any:
        return output if isinstance(output, Signal) else signal(torch.ones_like(output))

    hooks = [
        module.register_forward_hook(begin)
        for module in network.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    ]
    try:
        output = logits_of(call(network, ones_like_inputs(shape, device, dtype, signal)))
    except RuntimeError as error:
        if "type" not in str(error):
            raise
        raise InputError(
            f"paths must be followed in {str(dtype).removeprefix('torch.')}, but the forward pass "
            f"names another type ({error}); write it for any"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Signal):
        raise InputError(
            "a network's output must depend on its input for paths to lead there, but its forward "
            "pass returns a constant"
        )
    return output


def check_followable(model: nn.Module, input_shape: InputShape) -> None:
    """Refuse a network, on any device, that paths cannot be followed through, by an InputError."""
    network = copy_network(model).eval().requires_grad_(False)
    with torch.no_grad():
        follow(network, input_shape, next(network.parameters()).device, Signal.of)


def _find_reachable(
    skeleton: nn.Module, shape: InputShape, device: torch.device
) -> dict[str, Tensor]:
    """Find the positions on paths, by one forward and one backward pass."""
    if device.type == "cpu":
        # 2.5 times as fast; only zero or not matters, and between two layers float32 cannot
        # overflow. On a GPU, float32 may use transforms (Winograd, Fourier) that turn zeros into
        # rounding errors.
        skeleton = skeleton.float()

    weights = {name: layer.weight for name, layer in weighted_layers(skeleton).items()}
    with torch.enable_grad():
        paths = follow(skeleton, shape, device, Existence.of).sole.sum()
        gradients = torch.autograd.grad(
            paths, list(weights.values()), allow_unused=True, materialize_grads=True
        )
    return {name: gradient > 0 for name, gradient in zip(weights, gradients, strict=True)}


def linear_skeleton(model: nn.Module, masks: Masks) -> nn.Module:
    """Make a float64 copy with masks as weights, for signals to walk through.

    Biases of its conv and linear layers are zero, and all other parameters one, whatever they
    are. The model is not changed, and masks of biases are not used.
    """
    # deepcopy takes tensors in its memo as copied already, so it copies no weight.
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.ones_like(parameter, dtype=torch.float64))
        for parameter in model.parameters()
    }
    owners = weights_of(model)
    for name, parameter in weighted_parameters(model).items():
        filled = torch.zeros_like(parameter, dtype=torch.float64)
        if owners[name] == name:
            filled.copy_(masks[name])
        memo[id(parameter)] = nn.Parameter(filled)
    return copy_network(model, memo).double().eval()
