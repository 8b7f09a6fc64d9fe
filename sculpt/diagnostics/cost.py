"""Cost of a network: multiply-accumulates and activations, found without running it."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sculpt.diagnostics.arguments import check_output
from sculpt.diagnostics.layers import Layer, Masks, named_layers
from sculpt.errors import InputError
from sculpt.graph.shapes import QuickShapes

BYTES_PER_PARAMETER = 16
"""A float32 weight in training, its gradient, its momentum and its mask."""


@dataclass(frozen=True)
class Cost:
    """Work and memory of a forward pass over one input."""

    positions: dict[str, int]
    """Uses of each weight (output height × width, or input height × width of a transposed
    convolution; of all layers that share it), by parameter name, in order of the last use."""
    weights: dict[str, int]
    """Numbers of weights by parameter name."""
    activations: int
    """Numbers kept for the backward pass: the outputs of all leaf modules."""
    output_shape: tuple[int, ...]
    """Shape of the output for one input, for example (classes,)."""

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

    Raises:
        InputError: the network does not take such an input, or does not return one tensor.
    """
    traced = copy.deepcopy(model)
    names = {layer: name for name, _, layer in named_layers(traced)}  # before "meta" parts sharers
    traced.to("meta", torch.float32).eval()  # one precision for weights and input
    positions: dict[str, int] = {}
    weights: dict[str, int] = {}
    activations = 0

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal activations
        activations += sum(t.numel() for t in tree_leaves(output) if isinstance(t, Tensor))
        if isinstance(module, Layer):
            name = names[module]
            weights[name] = module.weight.numel()
            if isinstance(module, nn.Linear) or not module.transposed:
                uses = output.numel() // len(module.weight)
            else:
                uses = inputs[0].numel() // module.in_channels
            positions[name] = positions.pop(name, 0) + uses

    for module in traced.modules():
        if not any(module.children()):
            module.register_forward_hook(record)
    try:
        with torch.no_grad(), QuickShapes():
            output = check_output(traced(torch.empty(1, *input_shape, device="meta")))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"a network must take inputs of shape {tuple(input_shape)}, but refuses: {error}; give "
            "inputs or input_shape that fit it"
        ) from error
    return Cost(positions, weights, activations, tuple(output.shape[1:]))


def training_memory(parameters: int, cost: Cost, batch_size: int) -> int:
    """Estimate the bytes of training: weights and their copies, and float32 activations."""
    return BYTES_PER_PARAMETER * parameters + 4 * batch_size * cost.activations
