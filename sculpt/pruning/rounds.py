"""Pruning in rounds: score, prune a little, score the rest, and so on."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.errors import DryRankingError, InputError
from sculpt.pruning.masks import Masks, apply_masks, prunable_parameters
from sculpt.pruning.task import PruningTask

Rounds = Annotated[int, Field(ge=1, le=10_000)]
"""Number of rounds, as an option of a criterion."""


def score_in_rounds(
    model: nn.Module, task: PruningTask, score: Callable[[int], dict[str, Tensor]], rounds: int
) -> dict[str, Tensor]:
    """Score a network that shrinks exponentially from round to round (Tanaka et al. 2020, Alg. 1).

    After round r of R, (kept/total)^(r/R) of all prunable weights are left, and the others are
    zero while the next rounds score. The last round's scores are returned unmasked for the caller
    to choose `task.kept` of them, so one round is one-shot pruning.

    Args:
        model: Its weights change between the rounds, and are restored on return or error.
        task: Its rule makes the masks between the rounds. A score of 0 never fills one: if fewer
            scores are non-zero than scheduled, only these are kept; if a layer with a share of its
            own has too few, the round prunes nothing.
        score: Maps the round, from 1 to `rounds`, to the scores of the model in that round, as a
            criterion returns them.
        rounds: R ≥ 1.

    Returns:
        The last round's scores; a weight that an earlier round pruned scores 0.

    Raises:
        InputError: `rounds` is below 1.
        NumericsError: a score is not finite.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, but got {rounds}; 1 is one-shot pruning")
    parameters = prunable_parameters(model)
    total = sum(parameter.numel() for parameter in parameters.values())
    saved = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    masks: Masks | None = None
    try:
        for current in range(1, rounds):
            scores = _masked(score(current), masks)
            scheduled = round(total * (task.kept / total) ** (current / rounds))
            usable = sum(int(torch.count_nonzero(tensor)) for tensor in scores.values())
            try:
                selected = task.select_for_now(scores, min(scheduled, usable))
            except DryRankingError:
                continue
            # A pruned weight stays pruned, whatever the rule does.
            masks = {
                name: mask if masks is None else mask & masks[name]
                for name, mask in selected.items()
            }
            apply_masks(model, masks)
        return _masked(score(rounds), masks)
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(saved[name])


def _masked(scores: dict[str, Tensor], masks: Masks | None) -> dict[str, Tensor]:
    """Set the scores of pruned weights to 0."""
    if masks is None:
        return scores
    # Not a product: infinity times 0 would be NaN.
    return {name: tensor.where(masks[name], 0) for name, tensor in scores.items()}
