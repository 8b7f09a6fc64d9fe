"""Prune any network in one call."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.masks import Counting, Masks, apply_masks, keep_highest, prunable_budget
from sculpt.registry import CRITERIA


def prune(
    model: nn.Module,
    budget: int,
    *,
    criterion: str = "connection_sensitivity",
    inputs: Tensor | None = None,
    labels: Tensor | None = None,
    counting: Counting = "paper",
    batch_size: int = 250,
    seed: int = 0,
    **options: Any,
) -> Masks:
    """Prune a network to a budget, in place, by the scores of a criterion.

    Args:
        model:
            Any module with conv or linear layers, at the weights to be scored; see
            `sculpt.initialize` for drawing them.
        budget:
            Parameters to keep under the counting rule; met exactly.
        criterion:
            A registered name.
        inputs:
            Normalised inputs (N, ...) for the criteria that look at data, where the model is.
        labels:
            int64 (N,); only for criteria that look at labels.
        counting:
            `paper`: weights and biases of conv and linear layers count. `total`: everything
            trainable counts; batch norm is never pruned.
        batch_size:
            Inputs per scoring batch.
        seed:
            For criteria that draw.
        options:
            The criterion's own, for example `targets="gt"`.

    Returns:
        Bool masks, True = kept, keyed by parameter name. The pruned weights of the model are
        zero; while training, keep them so with `sculpt.apply_masks(model, masks)` after each
        step of the optimiser.

    Raises:
        UnknownNameError: no criterion has this name.
        BudgetError: the network is too small for the budget.
        DryRankingError: too few scores are non-zero.
        NumericsError: a score is not finite.
        InputError: there are fewer labels than inputs.
    """
    if inputs is not None and labels is not None and len(inputs) != len(labels):
        raise InputError(
            f"there must be one label for each input, but got {len(labels)} labels for "
            f"{len(inputs)} inputs"
        )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        if inputs is None:
            return
        # Criteria that read no labels are given placeholders that no loss accepts.
        targets = inputs.new_full((len(inputs),), -1).long() if labels is None else labels
        yield from zip(inputs.split(batch_size), targets.split(batch_size), strict=True)

    kept = prunable_budget(model, budget, counting)
    generator = torch.Generator().manual_seed(seed)
    scores = CRITERIA.get(criterion)(model, batches, generator, **options)
    masks = keep_highest(scores, kept)
    apply_masks(model, masks)
    return masks
