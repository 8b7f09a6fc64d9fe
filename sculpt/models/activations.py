"""Activations by name, as modules, which analyses of a network can find."""

from typing import Literal, get_args

from torch import nn

from sculpt.errors import check_choice

Activation = Literal["linear", "tanh", "relu", "leaky_relu", "selu"]

LEAKY_SLOPE = 0.01
"""Slope of the leaky ReLU below 0, as in Maas et al. 2013."""


def make_activation(name: Activation) -> nn.Module:
    """Make a new activation module; `linear` is the identity.

    Raises:
        InputError: `name` is not one of its values.
    """
    check_choice("activation", name, get_args(Activation))
    if name == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE)
    return {"linear": nn.Identity, "tanh": nn.Tanh, "relu": nn.ReLU, "selu": nn.SELU}[name]()
