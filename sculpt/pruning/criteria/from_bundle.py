"""The mask of a trained sparse network, unchanged: sparsity transferred to other images."""

import torch
from torch import Tensor, nn

from sculpt.bundle import Bundle
from sculpt.diagnostics.layers import kept_weights, weights_of
from sculpt.errors import BudgetError, DryRankingError, InputError
from sculpt.initializers.trained import fitting_layers, read_trained
from sculpt.pruning.mask_rule import MaskRule
from sculpt.pruning.masks import Masks, count_kept, prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA, FROM_BUNDLE


@CRITERIA.register(FROM_BUNDLE)
def from_bundle(model: nn.Module, task: PruningTask, *, bundle: str) -> dict[str, Tensor]:
    """Score the weights that a trained network keeps 1, and those it pruned 0.

    A layer of another shape there (the classifier of another number of classes, the first layer
    of another number of channels) keeps all its weights, and so does a layer without a mask.

    Args:
        task: Its budget must equal the weights that the mask keeps.
        bundle: Path of the trained network: a bundle, or a folder written by `sculpt export`.

    Raises:
        InputError: the file cannot be read, the network has other layers, or the task's rule would
            change the mask.
        BudgetError: the mask keeps more or fewer weights than the budget; the message says how
            many.
    """
    masks = _transfer_masks(model, read_trained(bundle), bundle)
    kept = kept_weights(masks)
    if kept != task.kept:
        numbers = {rule: count_kept(model, masks, rule) for rule in ("paper", "total")}
        also = f", or {numbers['total']} under the counting rule total"
        raise BudgetError(
            "the budget must be what the mask of a trained network keeps, but "
            f"{bundle} keeps {kept} weights and biases of this network, and the budget leaves "
            f"{task.kept}; set the budget to {numbers['paper']}"
            + (also if numbers["total"] != numbers["paper"] else "")
        )
    scores = {
        name: masks[name].to(parameter) for name, parameter in prunable_parameters(model).items()
    }
    _check_rule(task, scores)
    return scores


def _transfer_masks(model: nn.Module, trained: Bundle, path: str) -> Masks:
    """Make masks of a model from those of a trained network, on the CPU."""
    parameters, owners = prunable_parameters(model), weights_of(model)
    fitting = fitting_layers(model, trained, path)
    only_here = [name for name in owners if name not in trained.state]
    only_there = [name for name in trained.masks if name not in owners]
    if different := only_here + only_there:
        which = "is only in this network" if only_here else "is only in the trained one"
        raise InputError(
            "a trained network must have the same conv and linear layers as the one that takes "
            f"its mask, but {different[0]} {which} ({path}); give that of a network with the same "
            "options"
        )
    return {
        name: trained.masks[name]
        if owners[name] in fitting and name in trained.masks
        else torch.ones(parameter.shape, dtype=torch.bool, device="cpu")
        for name, parameter in parameters.items()
    }


def _check_rule(task: PruningTask, scores: dict[str, Tensor]) -> None:
    """Refuse a rule that would not keep exactly the weights with a score."""
    rule = task.rule
    if rule == MaskRule():
        return
    try:
        masks = task.select(scores)
        same = all(torch.equal(masks[name], score > 0) for name, score in scores.items())
    except (BudgetError, DryRankingError):
        same = False
    if not same:
        raise InputError(
            "the mask of a trained network must come out as it is, but another one would with "
            f"scope {rule.scope}, granularity {rule.granularity}, mac_exponent "
            f"{rule.mac_exponent}, effective {str(rule.effective).lower()}"
            + (f", layer_budgets {rule.layer_budgets}" if rule.layer_budgets else "")
            + f"; leave these out with the criterion {FROM_BUNDLE}"
        )
