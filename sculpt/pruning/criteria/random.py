"""Random pruning: the control that every criterion must beat."""

import torch
from torch import Tensor, nn

from sculpt.pruning.criteria import Batches
from sculpt.pruning.masks import prunable_parameters
from sculpt.registry import CRITERIA


@CRITERIA.register("random")
def random(model: nn.Module, batches: Batches, generator: torch.Generator) -> dict[str, Tensor]:
    """Score every weight with its own uniform draw from (0, 1]."""
    return {
        # 1 - [0, 1): an exact zero would count as a missing score.
        name: (1 - torch.rand(parameter.shape, generator=generator, device="cpu")).to(
            parameter.device
        )
        for name, parameter in prunable_parameters(model).items()
    }
