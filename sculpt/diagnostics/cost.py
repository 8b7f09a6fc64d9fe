"""Cost of a network: multiply-accumulates and activations, found without running it."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sculpt.diagnostics.layers import Masks

BYTES_PER_PARAMETER = 16
"""A float32 weight in training, its gradient, its momentum and its mask."""


@dataclass(frozen=True)
class Cost:
    """Work and memory of a forward pass over one input."""

    positions: dict[str, int]
    """Uses of each weight of a layer (output height × width), by parameter name."""
    weights: dict[str, int]
    """Weights of each layer without biases, by parameter name."""
    activations: int
    """Numbers kept for the backward pass: the outputs of all leaf modules."""

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the dense network; biases and batch norm not counted."""
        return sum(count * self.positions[name] for name, count in self.weights.items())

    def kept_macs(self, masks: Masks) -> int:
        """Multiply-accumulates on kept weights alone."""
        return sum(int(masks[name].sum()) * count for name, count in self.positions.items())


def measure_cost(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Trace a copy of a model on the meta device, which computes shapes only.

    `input_shape` is the shape of one input without its batch dimension, for example (3, 32, 32).
    """
    # One precision for weights and input.
    traced = copy.deepcopy(model).to("meta", torch.float32).eval()
    positions: dict[str, int] = {}
    weights: dict[str, int] = {}
    activations = 0

    def record(name: str, layer: nn.Module, output: Tensor) -> None:
        nonlocal activations
        activations += output.numel()
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            key = f"{name}.weight" if name else "weight"
            weights[key] = layer.weight.numel()
            outputs = len(layer.weight)
            positions[key] = positions.get(key, 0) + output.numel() // outputs

    for name, module in traced.named_modules():
        if not any(module.children()):
            module.register_forward_hook(
                lambda layer, _, output, name=name: record(name, layer, output)
            )
    with torch.no_grad():
        traced(torch.empty(1, *input_shape, device="meta"))
    return Cost(positions, weights, activations)


def training_memory(parameters: int, cost: Cost, batch_size: int) -> int:
    """Estimate the bytes of training: weights and their copies, and float32 activations."""
    return BYTES_PER_PARAMETER * parameters + 4 * batch_size * cost.activations
