"""Random pruning: the control that every criterion must beat."""

from torch import Tensor, nn

from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("random")
def random(model: nn.Module, task: PruningTask) -> dict[str, Tensor]:
    """Score every weight with its own uniform draw from (0, 1]."""
    parameters = prunable_parameters(model)
    return {name: task.draws(p.shape).to(p.device) for name, p in parameters.items()}
