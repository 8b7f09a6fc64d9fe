"""Masks: the weights that a network keeps, and their number under a counting rule."""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import Masks, check_masks, prunable_parameters
from sculpt.diagnostics.layers import dense_masks as dense_masks
from sculpt.errors import (
    BudgetError,
    DryRankingError,
    InputError,
    NumericsError,
    check_choice,
)

Scores = dict[str, Tensor]
"""Higher = keep, keyed by parameter name; one for every prunable parameter."""
MOST_NAMES = 20
"""Names of parameters in a message."""

Counting = Literal["paper", "total"]
"""`paper`: trainable weights and biases of conv and linear layers, and the weights of embeddings
that are pruned. `total`: all that trains."""


class WholeMask(Scores):
    """Scores of 1 and 0 that are a mask already: no rule of a ranking is applied to them again."""


def matching(
    names: Collection[str], include: Sequence[str], exclude: Sequence[str], hint: str = ""
) -> list[str]:
    """Return the names that match one of the patterns `include`, and none of `exclude`.

    Raises:
        InputError: these are no lists, or nothing matches one of their patterns; the message ends
            with the hint.
    """
    given = (include, exclude)
    faulty: list[object] = [p for p in given if isinstance(p, str) or not isinstance(p, Iterable)]
    matched: dict[str, set[str]] = {}
    if not faulty:
        matched = {pattern: set(fnmatch.filter(names, pattern)) for pattern in (*include, *exclude)}
        faulty += [pattern for pattern, found in matched.items() if not found]
    if faulty:
        raise InputError(
            "include and exclude must be lists of patterns, each of which some prunable parameter "
            f"matches, but got {faulty[0]!r}; their names are {', '.join(list(names)[:MOST_NAMES])}"
            + ", ..." * (len(names) > MOST_NAMES)
            + hint
        )
    chosen = {name for pattern in include for name in matched[pattern]}
    chosen -= {name for pattern in exclude for name in matched[pattern]}
    return [name for name in names if name in chosen]


def count_parameters(model: nn.Module, counting: Counting, also: Collection[str] = ()) -> int:
    """Count a dense network's parameters under a rule (269,034 or 269,722 for ResNet20).

    The weights of embeddings that `also` names are pruned.
    """
    if counting == "paper":
        return sum(p.numel() for p in prunable_parameters(model, also).values())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_kept(model: nn.Module, masks: Masks, counting: Counting) -> int:
    """Count a pruned network's parameters under a rule."""
    prunable = prunable_parameters(model, masks)
    removed = sum(int((~mask).sum()) for name, mask in masks.items() if name in prunable)
    return count_parameters(model, counting, masks) - removed


def prunable_budget(model: nn.Module, budget: int, counting: Counting, *, spared: int = 0) -> int:
    """Convert a budget for the whole network to one for its prunable parameters.

    Under `total`, batch-norm parameters count but are never pruned, so they are spent first; and so
    are `spared` others that the network seems not to train.

    Raises:
        BudgetError: the budget exceeds the dense network or does not cover the other parameters.
    """
    check_choice("counting", counting, get_args(Counting))
    dense = count_parameters(model, counting) + spared
    never_pruned = dense - count_parameters(model, "paper")
    if not never_pruned < budget <= dense:
        raise BudgetError(
            f"a budget must be above {never_pruned} (parameters that are never pruned) and at "
            f"most {dense} (the dense network, counting rule {counting!r}), but got {budget}; "
            "choose a larger network or another budget"
        )
    return budget - never_pruned


def keep_highest(scores: Mapping[str, Tensor], kept: int) -> Masks:
    """Keep exactly the `kept` highest scores of the whole network.

    Ties are broken by position (earlier parameters first), never by the threshold alone:
    comparing with a threshold would keep or drop all tied weights together.

    Args:
        scores: Non-negative or signed, higher = keep; of any shapes; keyed by parameter name.
        kept: How many weights to keep, from 0 to their number.

    Raises:
        NumericsError: a score is not finite; the message names the parameter.
        BudgetError: `kept` is out of range.
        DryRankingError: fewer scores than `kept` are non-zero; zeros rank nothing.
    """
    check_finite(scores)
    flat = torch.cat([score.flatten() for score in scores.values()])
    if not 0 <= kept <= flat.numel():
        raise BudgetError(
            f"the number of kept weights must be from 0 to {flat.numel()}, but got {kept}"
        )
    check_usable(scores, kept, int(torch.count_nonzero(flat)))
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    if kept > 0:
        # The kept-th largest value, then every larger one, then ties in order of position. (By
        # topk, because kthvalue runs in a single block of a GPU.)
        threshold = flat.topk(kept, sorted=False).values.min()
        chosen = flat > threshold
        ties = torch.nonzero(flat == threshold).flatten()
        chosen[ties[: kept - int(chosen.sum())]] = True
    sizes = [score.numel() for score in scores.values()]
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), chosen.split(sizes), strict=True)
    }


def check_finite(scores: Mapping[str, Tensor]) -> None:
    """Refuse scores that are not finite.

    Raises:
        NumericsError: a score is not finite; the message names the first such parameter.
    """
    for name, score in scores.items():
        if not torch.isfinite(score).all():
            bad = int((~torch.isfinite(score)).sum())
            raise NumericsError(
                f"scores must be finite, but {bad} of {score.numel()} scores of {name} are not; "
                "check the initialisation and the input images"
            )


def check_usable(scores: Mapping[str, Tensor], kept: int, usable: int) -> None:
    """Refuse to keep weights without a score.

    `usable` weights have a score other than zero, or are in a group with one.

    Raises:
        DryRankingError: too few are usable; the message names the parameters without any score.
    """
    total = sum(score.numel() for score in scores.values())
    if usable < kept < total:
        dry = [name for name, score in scores.items() if not score.any()]
        raise DryRankingError(
            f"at least {kept} scores must be non-zero to rank the weights to keep, but only "
            f"{usable} of {total} are (all zero in: {', '.join(dry) or 'none'}); use an "
            "initializer without exact zeros (delta-orthogonal kernels have them), another "
            "criterion, or a smaller budget"
        )


def collapsed_layers(masks: Masks) -> list[str]:
    """List the weights that are pruned completely, in the model's order.

    A signal passes such a layer only by a shortcut.
    """
    return [name for name, mask in masks.items() if mask.dim() > 1 and not mask.any()]


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set every pruned weight to zero, in place.

    Raises:
        InputError: the masks do not fit the model; the message names the parameter.
    """
    material_weights(model)
    here = check_masks(model, masks)
    parameters = material_weights(model, here)
    for name, mask in here.items():
        parameters[name].mul_(mask)
