"""Cost of a network: multiply-accumulates and activations, found without running it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sculpt.diagnostics.arguments import Example, InputShape, call, logits_of, ones_like_inputs
from sculpt.diagnostics.layers import Layer, Masks, named_layers
from sculpt.errors import InputError
from sculpt.graph.copies import copy_network
from sculpt.graph.shapes import QuickShapes

BYTES_PER_PARAMETER = 16
"""A float32 weight in training, its gradient, its momentum and its mask."""


_ATTENTION = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight"),
    *("in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight"),
)
"""Leading parameters of `torch.nn.functional.multi_head_attention_forward`."""


_PRODUCTS = ("matmul", "__matmul__", "mm", "addmm")
"""Products of matrices, by name: the last two tensors are multiplied."""


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
    """Shape of the logits for one input, for example (classes,)."""
    bare: bool = True
    """Whether the network returns its logits alone."""
    remade: tuple[str, ...] = ()
    """Weights of layers that ran and made others of them (weight standardisation), by parameter
    name: nobody knows how often they are used, and their pruned places need not stay zero."""

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the dense network; biases and batch norm not counted."""
        return sum(count * self.positions[name] for name, count in self.weights.items())

    def kept_macs(self, masks: Masks) -> int:
        """Multiply-accumulates on kept weights alone."""
        return sum(int(masks[name].sum()) * count for name, count in self.positions.items())


def measure_cost(model: nn.Module, input_shape: InputShape) -> Cost:
    """Trace a copy of a model on the meta device, which computes shapes only.

    An example is computed with, on the CPU: its numbers may decide what the network does. So is a
    network that reads numbers, if it has any.

    Raises:
        InputError: the network does not take such an input, or does not return logits.
    """
    if isinstance(input_shape, Example):
        return _measured(model, input_shape, torch.device("cpu"))
    try:
        return _measured(model, input_shape, torch.device("meta"))
    except InputError:
        if any(parameter.is_meta for parameter in model.parameters()):
            raise
        return _measured(model, input_shape, torch.device("cpu"))


def check_counted(model: nn.Module, cost: Cost) -> None:
    """Refuse a network that is pruned by its multiply-accumulates where these are not known.

    Raises:
        InputError: a layer makes other weights of one that may be pruned.
    """
    if remade := remade_weights(model, cost):
        raise InputError(
            "multiply-accumulates must be known of each weight that is pruned, but the layer of "
            f"{remade[0]} computes with others that it makes of it; leave it out (exclude=), or "
            "prune by parameters alone"
        )


def remade_weights(model: nn.Module, cost: Cost) -> list[str]:
    """List the weights that may be pruned, and that their layers make others of."""
    return [name for name in cost.remade if model.get_parameter(name).requires_grad]


def _measured(model: nn.Module, input_shape: InputShape, device: torch.device) -> Cost:
    """Trace a copy of a model on a device; see `measure_cost`."""
    traced = _in_float32(model, device)
    uses = _Uses({layer.weight: name for name, _, layer in named_layers(traced)})
    activations = 0
    weights_by_layer = {
        layer: uses.names[layer.weight] for layer in traced.modules() if isinstance(layer, Layer)
    }
    ran: dict[str, None] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal activations
        activations += sum(t.numel() for t in tree_leaves(output) if isinstance(t, Tensor))
        if module in weights_by_layer:
            ran[weights_by_layer[module]] = None

    for module in traced.modules():
        if not any(module.children()):
            module.register_forward_hook(record)
    try:
        with torch.no_grad(), QuickShapes(), uses:
            inputs = ones_like_inputs(input_shape, device, torch.float32, lambda ones: ones)
            returned = call(traced, inputs)
            output = logits_of(returned)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(
            f"a network must take inputs of shape {input_shape}, but refuses: {error}; give "
            "inputs or input_shape that fit it"
        ) from error
    positions = {name: round(count) for name, count in uses.positions.items()}
    weights = {
        name: parameter.numel() for parameter, name in uses.names.items() if name in positions
    }
    return Cost(
        positions,
        weights,
        activations,
        output_shape=tuple(output.shape[1:]),
        bare=output is returned,
        remade=tuple(name for name in ran if name not in positions),
    )


def _in_float32(model: nn.Module, device: torch.device) -> nn.Module:
    """Copy a model in inference mode, in one precision; the meta device holds no numbers."""
    memo: dict[int, Any] = {}  # deepcopy takes what is in it as copied already
    for tensor in (*model.parameters(), *model.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        copied = tensor.detach().to(device, dtype, copy=True)
        memo[id(tensor)] = (
            nn.Parameter(copied, False) if isinstance(tensor, nn.Parameter) else copied
        )
    return copy_network(model, memo).eval()


class _Uses(TorchFunctionMode):
    """Counts, in its context, the places that weights are used at, wherever that happens."""

    def __init__(self, names: dict[Tensor, str]):
        super().__init__()
        self.names = names
        self.positions: dict[str, float] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        output = func(*args, **kwargs)
        given = dict(zip(("input", "weight"), args, strict=False)) | kwargs
        if name in ("linear", "conv1d", "conv2d", "conv3d"):
            self._add(given["weight"], output.numel() // len(given["weight"]))
        elif name.startswith("conv_transpose"):
            self._add(given["weight"], given["input"].numel() // len(given["weight"]))
        elif name == "multi_head_attention_forward":
            given = dict(zip(_ATTENTION, args, strict=False)) | kwargs
            tokens = [given[key].numel() // given[key].shape[-1] for key in _ATTENTION[:3]]
            if given.get("in_proj_weight") is not None:
                self._add(given["in_proj_weight"], sum(tokens) / 3)
            for key, count in zip("qkv", tokens, strict=True):
                if given.get(f"{key}_proj_weight") is not None:
                    self._add(given[f"{key}_proj_weight"], count)
            self._add(given["out_proj_weight"], tokens[0])
        elif name in _PRODUCTS and isinstance(output, Tensor):
            given = (*args, *(part for key, part in kwargs.items() if key != "out"))
            tensors = [part for part in given if isinstance(part, Tensor)]
            for operand, columns in zip(tensors[-2:], (-2, -1), strict=False):
                if operand.dim() >= 2:
                    self._add(operand, output.numel() // output.shape[columns])
        return output

    def _add(self, weight: Tensor, count: float) -> None:
        whole = weight if weight in self.names else weight._base  # or a part of a weight
        if whole is not None and whole in self.names:
            name = self.names[whole]
            share = weight.numel() / whole.numel()
            self.positions[name] = self.positions.pop(name, 0) + count * share


def training_memory(parameters: int, cost: Cost, batch_size: int) -> int:
    """Estimate the bytes of training: weights and their copies, and float32 activations."""
    return BYTES_PER_PARAMETER * parameters + 4 * batch_size * cost.activations
