"""Random masks with Erdős–Rényi-kernel layer densities (Evci et al. 2020)."""

import torch
from torch import Tensor, nn

from sculpt.pruning.layer_budgets import erk_counts
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("erk_random")
def erk_random(model: nn.Module, task: PruningTask) -> dict[str, Tensor]:
    """Keep as many weights of each layer as `erk_counts` says, drawn uniformly.

    Returns:
        A draw from (0, 1] for each of `task.kept` weights, 0 for the others. Biases are only
        kept where all weights are.

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
