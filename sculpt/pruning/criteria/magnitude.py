"""Magnitude pruning (Han et al. 2015), of the weights as they are."""

import torch
from torch import Tensor, nn

from sculpt.pruning.criteria import Batches
from sculpt.pruning.masks import prunable_parameters
from sculpt.registry import CRITERIA


@CRITERIA.register("magnitude")
def magnitude(model: nn.Module, batches: Batches, generator: torch.Generator) -> dict[str, Tensor]:
    """Score every weight with its absolute value."""
    return {
        name: parameter.detach().abs() for name, parameter in prunable_parameters(model).items()
    }
