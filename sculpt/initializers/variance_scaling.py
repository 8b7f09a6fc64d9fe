"""Normal weights: of a variance scaled to the width of the layer, or of one for all layers."""

from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.diagnostics.layers import Projections
from sculpt.errors import InputError, check_choice
from sculpt.registry import INITIALIZERS

WeightedLayer = nn.modules.conv._ConvNd | nn.Linear
Variant = Literal["lecun", "glorot", "he"]
Positive = Annotated[float, Field(gt=0, le=1e6)]


@INITIALIZERS.register("variance_scaling")
def variance_scaling(
    layer: WeightedLayer,
    generator: torch.Generator,
    *,
    variant: Variant = "he",
    scale: Positive = 1.0,
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
    one = layer.weight
    if isinstance(layer, Projections):
        one = layer.weight[: len(layer.weight) // layer.groups]
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(one)
    variance = {"lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in}[variant]
    return torch.randn(layer.weight.shape, generator=generator) * (scale * variance) ** 0.5


@INITIALIZERS.register("gaussian")
def gaussian(
    layer: WeightedLayer, generator: torch.Generator, *, variance: Positive = 0.01
) -> Tensor:
    """Draw a layer's weight from N(0, γ), SG(γ) of Lee et al. 2020, Table 1.

    Args:
        variance: γ > 0 of each weight. Not scaled by the fan-in, so signals vanish or explode.

    Raises:
        InputError: `variance` is not above 0.
    """
    if not variance > 0:
        raise InputError(f"variance must be above 0, but got {variance}")
    return torch.randn(layer.weight.shape, generator=generator) * variance**0.5
