"""Pruning of any network in one call."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.errors import InputError, SculptWarning
from sculpt.pruning.mask_rule import Granularity, MaskRule, Scope
from sculpt.pruning.masks import (
    Counting,
    Masks,
    apply_masks,
    collapsed_layers,
    count_kept,
    prunable_budget,
)
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


def prune(
    model: nn.Module,
    budget: int,
    *,
    criterion: str = "connection_sensitivity",
    inputs: Tensor | None = None,
    labels: Tensor | None = None,
    input_shape: tuple[int, ...] | None = None,
    counting: Counting = "paper",
    scope: Scope = "global",
    granularity: Granularity = "weight",
    mac_exponent: float = 0.0,
    effective: bool = False,
    batch_size: int = 250,
    seed: int = 0,
    **options: Any,
) -> Masks:
    """Prune a network to a budget, in place, by the scores of a criterion.

    Args:
        model: Any module with conv or linear layers, at the weights to be scored; see
            `sculpt.initialize` for drawing them.
        budget: Parameters to keep under the counting rule; met exactly, except as said under
            `granularity` and `effective`.
        criterion: A registered name.
        inputs: Normalised inputs (N, ...) for the criteria that look at data, where the model is.
        labels: int64 (N,); only for criteria that look at labels.
        input_shape: Shape of one input; by default that of `inputs`. Some criteria need it instead
            of data.
        counting: `paper`: weights and biases of conv and linear layers count. `total`: everything
            trainable counts; batch norm is never pruned.
        scope: `global` ranks the whole network, `layer` each layer for itself at one density.
        granularity: `weight`; `kernel` (whole k×k kernels); `channel` (whole output channels with
            the weights that read them, which leaves dense layers of uneven width). Groups meet the
            budget as closely as possible and never exceed it; a warning says the rest.
        mac_exponent: p ≥ 0: scores are divided by (output height × width)^p before they are ranked.
        effective: Replace kept weights that lie on no path from input to output by others that do;
            a warning says if there are too few of those.
        batch_size: Inputs per scoring batch.
        seed: For criteria that draw.
        options: The criterion's own, for example `targets="gt"`.

    Returns:
        Bool masks, True = kept, keyed by parameter name. The pruned weights of the model are
        zero; while training, keep them so with `sculpt.apply_masks(model, masks)` after each
        step of the optimiser.

    Raises:
        UnknownNameError: no criterion has this name.
        BudgetError: the network is too small for the budget.
        DryRankingError: too few scores are non-zero.
        NumericsError: a score is not finite.
        InputError: there are fewer labels than inputs, or a needed argument is missing.

    Warns:
        SculptWarning: a layer has lost all its weights, or the budget could not be spent.
    """
    if inputs is not None and labels is not None and len(inputs) != len(labels):
        raise InputError(
            f"there must be one label for each input, but got {len(labels)} labels for "
            f"{len(inputs)} inputs"
        )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        if inputs is None:
            return
        # Placeholders that no loss accepts, for criteria that read no labels.
        targets = inputs.new_full((len(inputs),), -1).long() if labels is None else labels
        yield from zip(inputs.split(batch_size), targets.split(batch_size), strict=True)

    if input_shape is None and inputs is not None:
        input_shape = tuple(inputs.shape[1:])
    task = PruningTask(
        model,
        prunable_budget(model, budget, counting),
        batches,
        torch.Generator().manual_seed(seed),
        input_shape,
        MaskRule(scope, granularity, mac_exponent, effective),
    )
    masks = task.select(CRITERIA.get(criterion)(model, task, **options))
    apply_masks(model, masks)
    if collapsed := collapsed_layers(masks):
        warnings.warn(
            f"every layer should keep some weights, but nothing is left of {', '.join(collapsed)}; "
            "use another initializer or criterion, scope='layer', or a larger budget",
            SculptWarning,
            stacklevel=2,
        )
    if unspent := budget - count_kept(model, masks, counting):
        warnings.warn(
            f"{unspent} of {budget} parameters could not be spent with granularity "
            f"{granularity!r} and effective={effective}",
            SculptWarning,
            stacklevel=2,
        )
    return masks
