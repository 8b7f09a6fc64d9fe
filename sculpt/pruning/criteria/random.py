"""Random masks: the controls that every criterion must beat."""

import torch
from torch import Tensor, nn

from sculpt.pruning.layer_budgets import erk_counts
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("random")
def random(model: nn.Module, task: PruningTask) -> dict[str, Tensor]:
    """Score every weight with its own uniform draw from (0, 1]."""
    parameters = prunable_parameters(model)
    return {name: task.draws(p.shape).to(p.device) for name, p in parameters.items()}


@CRITERIA.register("erk_random")
def erk_random(model: nn.Module, task: PruningTask) -> dict[str, Tensor]:
    """Draw the weights to keep uniformly within layers of Erdős–Rényi-kernel densities.

    The densities are those of `erk_counts` (Evci et al. 2020).

    Returns:
        A draw from (0, 1] for each of `task.kept` weights, 0 for the others. Biases are kept
        only where all weights are.

    Raises:
        BudgetError: more weights must be kept than there are.
    """
    parameters = prunable_parameters(model)
    counts = erk_counts({name: p.shape for name, p in parameters.items()}, task.kept)
    scores = {}
    for name, parameter in parameters.items():
        draws = task.draws([parameter.numel()])
        chosen = torch.zeros_like(draws)
        # By index, not above a threshold: equal draws must not be kept or dropped together.
        highest = draws.topk(counts[name]).indices
        chosen[highest] = draws[highest]
        scores[name] = chosen.view(parameter.shape).to(parameter.device)
    return scores
