"""SG(γ): normal weights of one variance in every layer, whatever its width."""

import torch
from torch import Tensor

from sculpt.errors import InputError
from sculpt.pruning.initializers.variance_scaling import WeightedLayer
from sculpt.registry import INITIALIZERS


@INITIALIZERS.register("gaussian")
def gaussian(layer: WeightedLayer, generator: torch.Generator, *, variance: float = 0.01) -> Tensor:
    """Draw a layer's weight from N(0, γ) (Lee et al. 2020, Table 1).

    Args:
        variance: γ > 0, of each weight: not scaled by the fan-in, which is what breaks signals.

    Raises:
        InputError: `variance` is not above 0.
    """
    if not variance > 0:
        raise InputError(f"variance must be above 0, but got {variance}")
    return torch.randn(layer.weight.shape, generator=generator) * variance**0.5
