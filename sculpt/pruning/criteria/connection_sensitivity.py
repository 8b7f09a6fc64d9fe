"""Connection sensitivity (SNIP), with labels or without (Lee et al. 2020, Eq. 1, 3 and §5)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sculpt.diagnostics.layers import describe
from sculpt.errors import InputError, check_choice
from sculpt.pruning.masks import check_finite, prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA

Targets = Literal["uniform", "gt", "pred_softmax", "pred_raw", "jacobian_1", "jacobian_2"]
BatchNormMode = Literal["identity", "batch"]
Precision = Literal["float32", "bfloat16"]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(inputs, logits, labels) to a number summed over the images."""


@CRITERIA.register("connection_sensitivity")
def connection_sensitivity(
    model: nn.Module,
    task: PruningTask,
    *,
    targets: Targets = "uniform",
    batch_norm: BatchNormMode = "identity",
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Score each connection by how much the loss would change if its weight were scaled.

    s_j = |g_j| / Σ|g| with g = w ⊙ ∂L/∂w (Eq. 1). The gradient is summed over all images
    first; only then is the absolute value taken.

    Args:
        model: Maps inputs to logits (N, classes).
        task: Every image of its batches counts the same, whatever the batch size.
        targets: What L is. `uniform`: cross-entropy to the uniform distribution, which needs no
            labels (§5). `gt`: cross-entropy to the ground-truth labels (SNIP). `pred_raw`:
            cross-entropy −Σ_c t_c · log p_c to the network's own logits t averaged over the images.
            `pred_softmax`: −Σ_c p̄_c · log p̄_c of its softmax output p̄ averaged over the images,
            the cross-entropy of that prediction to itself. `jacobian_1`, `jacobian_2`: no targets;
            the sum of absolute entries, or the Frobenius norm, of each image's input-output
            Jacobian. Where the task has another loss, `gt` and `uniform` are of that one.
        batch_norm: `identity`: inference mode, so that fresh statistics (0, 1) leave signals alone,
            as in the authors' code. `batch`: each batch is normalised by its own statistics.
        precision: Of products and convolutions. `bfloat16` is faster where the device has it, and
            finds nearly the same mask (README, "How fast"); gradients are still added up in
            float32.

    Returns:
        Scores that sum to 1 over the network (all zero if every gradient is).

    Raises:
        InputError: there are no images, an option is not one of its values, a layer is not used,
            or the network does not return logits.
        NumericsError: a score is not finite; the message names the parameter.
    """
    check_choice("targets", targets, get_args(Targets))
    check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
    check_choice("precision", precision, get_args(Precision))
    parameters = prunable_parameters(model)
    gradients = [torch.zeros_like(parameter) for parameter in parameters.values()]
    images = 0
    with scoring_mode(model, batch_norm):
        loss = make_loss(model, task, targets)
        for inputs, labels in task.batches():
            # Biases behind the last activation do not move a Jacobian.
            of_jacobian = targets.startswith("jacobian")
            if of_jacobian:
                inputs = inputs.detach().requires_grad_()
            logits = classify(model, inputs, precision)
            found = torch.autograd.grad(
                loss(inputs, logits, labels),
                list(parameters.values()),
                allow_unused=True,
                materialize_grads=of_jacobian,
            )
            if unused := [n for n, g in zip(parameters, found, strict=True) if g is None]:
                raise InputError(
                    "every conv and linear layer must be used in the forward pass to be scored, "
                    f"but {unused[0]} is not; freeze it with requires_grad_(False), or remove it"
                )
            torch._foreach_add_(gradients, found)
            images += len(inputs)
    if images == 0:
        raise InputError("connection sensitivity must see at least one image, but got none")
    scores = [
        (gradient * parameter.detach()).abs()
        for gradient, parameter in zip(gradients, parameters.values(), strict=True)
    ]
    check_finite(dict(zip(parameters, scores, strict=True)))  # before the sum spreads a NaN
    # In float64: a float32 sum over millions of terms would depend on their order. The
    # smallest divisor keeps a network without any gradient from turning into NaN.
    total = float(sum(score.sum(dtype=torch.float64) for score in scores))
    divisor = max(total, torch.finfo(torch.float32).tiny)
    return {name: score / divisor for name, score in zip(parameters, scores, strict=True)}


def classify(model: nn.Module, inputs: Tensor, precision: Precision = "float32") -> Tensor:
    """Compute the logits (N, classes) of inputs (N, ...), float32 whatever the precision.

    Raises:
        InputError: the network returns something else, or nothing that depends on its weights.
    """
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(inputs)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
        raise InputError(
            f"a network must return one tensor of logits (N, classes), here of {len(inputs)} rows, "
            f"but returned {describe(logits)}; wrap it in a module that returns only its logits, "
            "one row for each input"
        )
    if torch.is_grad_enabled() and not logits.requires_grad:
        raise InputError(
            "logits must depend on the weights to be scored, but here they do not; let the forward "
            "pass neither detach them nor run in torch.no_grad"
        )
    # The loss is a difference of near numbers: not in bfloat16.
    return logits.float() if precision == "bfloat16" else logits


def make_loss(model: nn.Module, task: PruningTask, targets: Targets) -> Loss:
    """Make the loss whose sensitivity is scored, summed over images so that batches add up."""
    if targets.startswith("jacobian"):
        order = int(targets[-1])
        return lambda inputs, logits, _: _jacobian_norms(inputs, logits, order).sum()
    if task.loss:
        return task.loss(targets)
    if targets.startswith("pred"):
        average = _average_prediction(model, task, softmax=targets == "pred_softmax")

    def loss(_: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.shape[1] < 2:
            raise InputError(
                "cross-entropy must be over two classes at least, but the network returns one "
                "logit for each input; give it two outputs, or take another criterion or targets"
            )
        if targets == "gt":
            return F.cross_entropy(logits, _checked(labels, logits.shape[1]), reduction="sum")
        if targets == "uniform":
            return -F.log_softmax(logits, dim=1).mean(dim=1).sum()
        if targets == "pred_raw":
            return -(F.log_softmax(logits, dim=1) * average).sum()
        # The gradient of the entropy of an average: Σ_c ∂p̄_c is 0, so only
        # −Σ_c ∂p̄_c · log p̄_c stays.
        return -(logits.softmax(dim=1) * average.log()).sum()

    return loss


def _checked(labels: Tensor, classes: int) -> Tensor:
    """Refuse labels that are no classes of the network."""
    lowest, highest = labels.min(), labels.max()
    if lowest < 0:
        raise InputError(
            "targets='gt' must come with the labels of the inputs, but there are none; "
            "give labels=, or score with targets='uniform'"
        )
    if highest >= classes:
        raise InputError(
            f"labels must be below the network's {classes} classes, but one is {int(highest)}; "
            "number them from 0, or give the network more outputs"
        )
    return labels


@torch.no_grad()
def _average_prediction(model: nn.Module, task: PruningTask, *, softmax: bool) -> Tensor:
    """Average the network's output over the images, (1, classes)."""
    total, images = torch.zeros(()), 0
    for inputs, _ in task.batches():
        logits = classify(model, inputs)
        outputs = logits.softmax(1) if softmax else logits
        total = total.to(outputs) + outputs.sum(0, keepdim=True)
        images += len(inputs)
    return total / max(images, 1)


def _jacobian_norms(inputs: Tensor, logits: Tensor, order: int) -> Tensor:
    """Compute the entrywise 1- or 2-norm of each image's Jacobian, (N,), differentiably."""
    rows = [
        # One row of every image's Jacobian at once: images do not depend on each other.
        torch.autograd.grad(column.sum(), inputs, create_graph=True)[0].flatten(1)
        for column in logits.unbind(1)
    ]
    return torch.stack(rows, dim=1).flatten(1).norm(p=order, dim=1)


@contextmanager
def scoring_mode(model: nn.Module, batch_norm: BatchNormMode) -> Iterator[None]:
    """Put the model in inference mode, with batch norm in the given mode, then restore it.

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
