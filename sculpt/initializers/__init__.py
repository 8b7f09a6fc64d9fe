"""Initializers. Each file registers one, as a function

    initializer(layer, generator, *, option=default, ...) -> weight

- `layer`: one conv or linear layer, whose shape, stride and groups may be read.
- `generator`: a CPU generator; the result is the same on every device.
- `weight`: a CPU tensor of the shape of `layer.weight`.

Biases start at 0 and batch norm at (1, 0) whatever the initializer; see `initialize`.

An initializer whose first parameter is called `model` sets a whole network in place instead:

    initializer(model, seed, *, option=default, ...) -> None
"""

import warnings
from collections.abc import Callable, Collection
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import named_layers
from sculpt.errors import SculptWarning
from sculpt.registry import INITIALIZERS, check_options
from sculpt.seeding import derive_seed


@torch.no_grad()
def initialize(model: nn.Module, initializer: str, *, seed: int, **options: Any) -> None:
    """Redraw every weight of the model, in place; frozen parameters are left alone.

    Args:
        model: Any module; its conv, linear and batch-norm layers are set.
        initializer: A registered name, for example `"ldi"`.
        seed: Each layer draws from a stream of its own, derived from the seed and its name.
        options: Options of the initializer.

    Raises:
        UnknownNameError: no initializer has this name.
        InputError: it has no such option, or the model's weights are not there to be set.

    Warns:
        SculptWarning: most weights are drawn as exactly 0, as with the delta kernels of `ldi`.
    """
    draw = INITIALIZERS.get(initializer)
    check_options(initializer, draw, options)
    material_weights(model)
    if "model" in signature(draw).parameters:
        draw(model, seed, **options)
        return
    total, zeros = draw_layers(model, draw, seed=seed, **options)
    if zeros > total / 2:
        warnings.warn(
            f"{zeros} of {total} weights were drawn as exactly 0. Criteria that multiply by the "
            f"weight score them 0, so that they can rank no more than {total - zeros} weights to "
            "keep; where a budget keeps more, draw weights without zeros (the kernel 'block' of "
            "ldi, where 'delta' was asked for)",
            SculptWarning,
            stacklevel=3,  # past torch.no_grad, to the caller
        )


@torch.no_grad()
def draw_layers(
    model: nn.Module,
    draw: Callable[..., Tensor],
    *,
    seed: int,
    leave: Collection[str] = (),
    **options: Any,
) -> tuple[int, int]:
    """Draw the weights of a model layer by layer; set biases to 0 and batch norms to (1, 0).

    Weights named in `leave` are not drawn. Returns the numbers of weights drawn, and of those
    drawn as exactly 0.
    """
    total = zeros = 0
    drawn: set[Tensor] = set()
    for weight_name, _, layer in named_layers(model):
        if layer.bias is not None and layer.bias.requires_grad:
            layer.bias.zero_()
        if weight_name in leave or layer.weight in drawn or not layer.weight.requires_grad:
            continue
        drawn.add(layer.weight)
        name = weight_name.removesuffix("weight").removesuffix(".")
        generator = torch.Generator().manual_seed(derive_seed(seed, "weights", name))
        # A CPU generator draws on the CPU, whatever torch.set_default_device says.
        with torch.device("cpu"):
            weight = draw(layer, generator, **options)
        total += weight.numel()
        zeros += weight.numel() - int(torch.count_nonzero(weight))
        layer.weight.copy_(weight)
    for module in model.modules():
        trains = all(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and trains:
            module.reset_parameters()
    return total, zeros
