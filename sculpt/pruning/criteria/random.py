"""Random pruning: the control that every criterion must beat."""

import torch
from torch import Tensor, nn

from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("random")
def random(model: nn.Module, task: PruningTask) -> dict[str, Tensor]:
    """Score every weight with its own uniform draw from (0, 1]."""
    return {
        # 1 - [0, 1): an exact zero would count as a missing score.
        name: (1 - torch.rand(parameter.shape, generator=task.generator, device="cpu")).to(
            parameter.device
        )
        for name, parameter in prunable_parameters(model).items()
    }
