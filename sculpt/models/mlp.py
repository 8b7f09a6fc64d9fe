"""Fully connected networks: MLP-K of Lee et al. 2020 and LeNet-300-100 (LeCun et al. 1998)."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import nn

from sculpt.errors import InputError
from sculpt.models.activations import Activation, make_activation
from sculpt.registry import MODELS


@MODELS.register("mlp")
def mlp(
    channels: int,
    classes: int,
    pixels: int,
    *,
    layers: Annotated[int, Field(ge=1, le=1000)] = 3,
    units: Annotated[int, Field(ge=1, le=100_000)] = 100,
    activation: Activation = "tanh",
) -> nn.Module:
    """Build MLP-K: `layers` linear layers, all hidden ones of one width (100 in the paper).

    Args:
        layers: K ≥ 1, the classifier included.
        units: Units of each hidden layer.
        activation: Between the layers.

    Raises:
        InputError: an option is outside its range.
    """
    for name, value in {"layers": layers, "units": units}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, but got {value}")
    return stack([channels * pixels, *[units] * (layers - 1), classes], activation)


@MODELS.register("lenet_300_100")
def lenet_300_100(
    channels: int, classes: int, pixels: int, *, activation: Activation = "relu"
) -> nn.Module:
    """Build LeNet-300-100: hidden layers of 300 and 100 units.

    Args:
        activation: Between the layers.

    Raises:
        InputError: `activation` is not one of its values.
    """
    return stack([channels * pixels, 300, 100, classes], activation)


def stack(widths: list[int], activation: Activation) -> nn.Sequential:
    """Stack linear layers between the widths, with an activation after each but the last."""
    modules: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        modules += [nn.Linear(inputs, outputs), make_activation(activation)]
    return nn.Sequential(*modules[:-1])
