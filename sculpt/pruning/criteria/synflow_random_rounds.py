"""SynFlow with random rounds: the naive node-path method (Pham et al. 2022, ICLR 2023 submission).

*Understanding Pruning at Initialization: An Effective Node-Path Balancing Perspective.*
"""

import torch
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.criteria.synflow import FlowScore
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.rounds import score_in_rounds
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("synflow_random_rounds")
def synflow_random_rounds(
    model: nn.Module,
    task: PruningTask,
    *,
    rounds: int = 100,
    interval: int = 5,
    last_random_round: int = 80,
) -> dict[str, Tensor]:
    """Score as SynFlow does, but at random in some of the early rounds.

    SynFlow alone concentrates its budget on few nodes with many paths. A random round prunes
    everywhere alike, which keeps more nodes alive.

    Args:
        model: Conv and linear layers, activations as modules.
        task: Its input shape must be known; no images are looked at.
        rounds: At least 1.
        interval: At least 1: every `interval`-th round is random (the paper's Δt). The default is
            ours.
        last_random_round: Rounds after this one are SynFlow's alone (the paper's t_max), and so is
            always the last of all rounds, which makes the mask; 0 is plain SynFlow. The default is
            ours.

    Returns:
        The last round's SynFlow scores, float64; 0 for what an earlier round pruned.

    Raises:
        InputError: the shape of the inputs is not known, or an option is outside its range.
        NumericsError: a weight is not finite, or the flow exceeds float64.
    """
    if interval < 1 or last_random_round < 0:
        raise InputError(
            "interval must be at least 1 and last_random_round at least 0, but got "
            f"interval {interval} and last_random_round {last_random_round}; "
            "last_random_round=0 makes no round random"
        )
    flow = FlowScore(model, task.required_shape("synflow_random_rounds"))

    def score(current: int) -> dict[str, Tensor]:
        if current % interval == 0 and current <= last_random_round and current < rounds:
            return _random_scores(model, task)
        return flow()

    return score_in_rounds(model, task, score, rounds)


def _random_scores(model: nn.Module, task: PruningTask) -> dict[str, Tensor]:
    """Return uniform draws from (0, 1]; 0 where a weight is 0 and could never score again."""
    return {
        name: task.draws(p.shape, torch.float64).to(p.device).where(p.detach() != 0, 0)
        for name, p in prunable_parameters(model).items()
    }
