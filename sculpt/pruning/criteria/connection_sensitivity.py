"""Connection sensitivity (SNIP), with labels or without (Lee et al. 2020, Eq. 1, 3 and §5)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sculpt.errors import InputError, check_choice
from sculpt.pruning.criteria import Batches
from sculpt.pruning.masks import prunable_parameters
from sculpt.registry import CRITERIA

Targets = Literal["uniform", "gt"]
BatchNormMode = Literal["identity", "batch"]


@CRITERIA.register("connection_sensitivity")
def connection_sensitivity(
    model: nn.Module,
    batches: Batches,
    generator: torch.Generator,
    *,
    targets: Targets = "uniform",
    batch_norm: BatchNormMode = "identity",
) -> dict[str, Tensor]:
    """Score each connection by how much the loss would change if its weight were scaled.

    s_j = |g_j| / Σ|g| with g = w ⊙ ∂L/∂w (Eq. 1). The gradient is summed over all images
    first; only then is the absolute value taken.

    Args:
        model:
            Maps inputs to logits (N, classes).
        batches:
            See the room's contract. Every image counts the same, whatever the batch size.
        generator:
            Not used: nothing is drawn.
        targets:
            `uniform`: cross-entropy to the uniform distribution, which needs no labels (§5).
            `gt`: cross-entropy to the ground-truth labels (SNIP).
        batch_norm:
            `identity`: inference mode, so that fresh statistics (0, 1) leave signals alone,
            as in the authors' code. `batch`: each batch is normalised by its own statistics.

    Returns:
        Scores that sum to 1 over the network (all zero if every gradient is).

    Raises:
        InputError: there are no images, or an option is not one of its values.
    """
    check_choice("targets", targets, get_args(Targets))
    check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
    parameters = prunable_parameters(model)
    gradients = [torch.zeros_like(parameter) for parameter in parameters.values()]
    images = 0
    with scoring_mode(model, batch_norm):
        for inputs, labels in batches():
            if targets == "gt" and images == 0 and labels.min() < 0:
                raise InputError(
                    "targets='gt' must come with the labels of the inputs, but there are none; "
                    "give labels=, or score with targets='uniform'"
                )
            logits = model(inputs)
            if targets == "uniform":
                # Cross-entropy to 1/classes each; a sum, so that batches add up.
                loss = -F.log_softmax(logits, dim=1).mean(dim=1).sum()
            else:
                loss = F.cross_entropy(logits, labels, reduction="sum")
            torch._foreach_add_(gradients, torch.autograd.grad(loss, list(parameters.values())))
            images += len(inputs)
    if images == 0:
        raise InputError("connection sensitivity must see at least one image, but got none")
    scores = [
        (gradient * parameter.detach()).abs()
        for gradient, parameter in zip(gradients, parameters.values(), strict=True)
    ]
    # In float64: a float32 sum over millions of terms would depend on their order. The
    # smallest divisor keeps a network without any gradient from turning into NaN.
    total = float(sum(score.sum(dtype=torch.float64) for score in scores))
    divisor = max(total, torch.finfo(torch.float32).tiny)
    return {name: score / divisor for name, score in zip(parameters, scores, strict=True)}


@contextmanager
def scoring_mode(model: nn.Module, batch_norm: BatchNormMode) -> Iterator[None]:
    """Put the model in inference mode, with batch norm in the mode asked for, then restore it.

    Running statistics are neither read in mode `batch` nor changed in any mode.
    """
    modes = {module: module.training for module in model.modules()}
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracking = {norm: norm.track_running_stats for norm in norms}
    model.eval()
    if batch_norm == "batch":
        for norm in norms:
            norm.train()
            norm.track_running_stats = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm in norms:
            norm.track_running_stats = tracking[norm]
