"""Variance scaling: normal weights, scaled by the number of connections of a unit."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sculpt.errors import check_choice
from sculpt.registry import INITIALIZERS

WeightedLayer = nn.modules.conv._ConvNd | nn.Linear
Variant = Literal["lecun", "glorot", "he"]


@INITIALIZERS.register("variance_scaling")
def variance_scaling(
    layer: WeightedLayer, generator: torch.Generator, *, variant: Variant = "he", scale: float = 1.0
) -> Tensor:
    """Draw a layer's weight from a zero-mean normal distribution.

    Args:
        variant: The variance: `lecun` (VS-L) 1/fan_in, `glorot` (VS-G) 2/(fan_in + fan_out), `he`
            (VS-H) 2/fan_in.
        scale: A factor on the variance.

    Raises:
        InputError: `variant` is not one of its values.
    """
    check_choice("variant", variant, get_args(Variant))
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    variance = {"lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in}[variant]
    return torch.randn(layer.weight.shape, generator=generator) * (scale * variance) ** 0.5
