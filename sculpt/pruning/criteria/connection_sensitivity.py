"""Connection sensitivity (SNIP), with labels or without (Lee et al. 2020, Eq. 1, 3 and §5)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sculpt.diagnostics.arguments import call, count_rows, logits_of
from sculpt.diagnostics.layers import describe
from sculpt.errors import InputError, check_choice
from sculpt.pruning.batches import IGNORED
from sculpt.pruning.masks import check_finite, prunable_parameters
from sculpt.pruning.task import Loss, PruningTask
from sculpt.pruning.warm_up import warmed_up
from sculpt.registry import CRITERIA

Targets = Literal["uniform", "gt", "pred_softmax", "pred_raw", "jacobian_1", "jacobian_2"]
BatchNormMode = Literal["identity", "batch", "warm_up"]
Precision = Literal["float32", "bfloat16"]

SummedLoss = Callable[[Any, Tensor], Tensor]
"""(inputs, labels) of a batch to a number summed over its images."""


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
        model: Maps inputs to logits (N, classes), or (N, classes, ...) with one answer for each
            position; see `logits_of`.
        task: Every image of its batches counts the same, whatever the batch size. A loss of the
            task's takes the place of `targets`; its numbers are added up over the batches.
        targets: What L is. `uniform`: cross-entropy to the uniform distribution, which needs no
            labels (§5). `gt`: cross-entropy to the ground-truth labels (SNIP). `pred_raw`:
            cross-entropy −Σ_c t_c · log p_c to the network's own logits t averaged over the images.
            `pred_softmax`: −Σ_c p̄_c · log p̄_c of its softmax output p̄ averaged over the images,
            the cross-entropy of that prediction to itself. `jacobian_1`, `jacobian_2`: no targets;
            the sum of absolute entries, or the Frobenius norm, of each image's input-output
            Jacobian. Where the task has another loss, `gt` and `uniform` are of that one.
        batch_norm: `identity`: inference mode, so that fresh statistics (0, 1) leave signals alone,
            as in the authors' code. `batch`: each batch is normalised by its own statistics.
            `warm_up`: inference mode with the statistics of all images, which are passed through
            the network first; see `warmed_up`.
        precision: Of products and convolutions. `bfloat16` is faster where the device has it, and
            finds nearly the same mask (docs/measured/speed.md); gradients are still added up in
            float32.

    Returns:
        Scores that sum to 1 over the network (all zero if every gradient is); 0 for weights that
        the loss does not depend on, such as those of a head that is not used.

    Raises:
        InputError: there are no images, an option is not one of its values, or the network does
            not return logits.
        NumericsError: a score is not finite; the message names the parameter.
    """
    check_choice("targets", targets, get_args(Targets))
    check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
    check_choice("precision", precision, get_args(Precision))
    parameters = prunable_parameters(model)
    # Those of a network in float16 would be lost in it.
    gradients = [
        torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))
        for parameter in parameters.values()
    ]
    images = 0
    with scoring_mode(model, batch_norm, task, twice=targets.startswith("jacobian")):
        loss = make_loss(model, task, targets, precision)
        for inputs, labels in task.batches():
            found = gradients_of(loss(inputs, labels), list(parameters.values()))
            torch._foreach_add_(gradients, found)
            images += images_of(task, inputs)
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


def gradients_of(
    value: Tensor,
    weights: Sequence[Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> tuple[Tensor, ...]:
    """Compute gradients, 0 for weights that the value does not depend on."""
    return torch.autograd.grad(
        value,
        weights,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def check_seen(images: int, criterion: str) -> None:
    """Refuse to score without images, by an InputError."""
    if images == 0:
        raise InputError(
            f"{criterion} must see at least one image, but got none; give inputs=, or choose a "
            "criterion that needs no data"
        )


def make_loss(
    model: nn.Module,
    task: PruningTask,
    targets: Targets,
    precision: Precision = "float32",
    *,
    temperature: float = 1.0,
) -> SummedLoss:
    """Make the loss whose sensitivity is scored, summed over images so that batches add up.

    That is the task's, if it has one; else one of the logits, divided by a temperature.
    """
    if task.loss is not None:
        return _loss_of_task(model, task.loss, precision)
    of_task = None
    if task.target_losses is not None and not targets.startswith("jacobian"):
        of_task = task.target_losses(targets)
    elif targets.startswith("pred"):
        average = _average_prediction(model, task, softmax=targets == "pred_softmax")

    def loss(inputs: Any, labels: Tensor) -> Tensor:
        if targets.startswith("jacobian"):
            inputs = _derivable(inputs)
            logits = classify(model, inputs, precision)
            if len(logits) != len(inputs):
                raise InputError(
                    "a Jacobian must be of one answer for each input, but the network gives "
                    f"{len(logits) // len(inputs)}; choose other targets"
                )
            return _jacobian_norms(inputs, logits, int(targets[-1])).sum()
        logits = classify(model, inputs, precision)
        if temperature != 1:
            logits = logits / temperature
        if of_task is not None:
            return of_task(inputs, logits, labels)
        if logits.shape[1] < 2:
            raise InputError(
                "cross-entropy must be over two classes at least, but the network returns one "
                "logit for each input; give it two outputs, or another loss (loss=), or take "
                "another criterion or targets"
            )
        if targets == "gt":
            return F.cross_entropy(logits, _checked(labels, logits), reduction="sum")
        if targets == "uniform":
            return -F.log_softmax(logits, dim=1).mean(dim=1).sum()
        if targets == "pred_raw":
            return -(F.log_softmax(logits, dim=1) * average).sum()
        # The gradient of the entropy of an average: Σ_c ∂p̄_c is 0, so only
        # −Σ_c ∂p̄_c · log p̄_c stays.
        least = torch.finfo(average.dtype).tiny  # of a class that no image may have: 0 · log 0 is 0
        return -(logits.softmax(dim=1) * average.clamp_min(least).log()).sum()

    return loss


def images_of(task: PruningTask, inputs: Any) -> int:
    """Count the images of a batch; one that is left whole for the task's own loss counts as one."""
    return 1 if task.loss is not None else count_rows(inputs)


def _loss_of_task(model: nn.Module, own: Loss, precision: Precision) -> SummedLoss:
    def loss(batch: Any, _: Tensor) -> Tensor:
        device = next(model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            found = own(model, batch)
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
            raise InputError(
                "a loss must return one number that depends on the weights, but returned "
                f"{describe(found)}; reduce it to its sum or mean, outside of torch.no_grad"
            )
        return found.float().sum()

    return loss


def classify(model: nn.Module, inputs: Any, precision: Precision = "float32") -> Tensor:
    """Compute the logits of inputs, float32 whatever the precision.

    Returns:
        (N, classes); or (N × positions, classes) of a network that answers for each position, such
        as a pixel or a token.

    Raises:
        InputError: the network returns something else, or nothing that depends on its weights.
    """
    rows = count_rows(inputs)
    device = next(model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        output = call(model, inputs)
    logits = logits_of(output)
    if logits.dim() < 2 or len(logits) != rows or (logits is output and logits.dim() == 3):
        raise InputError(
            f"a network must return logits (N, classes) or (N, classes, height, width), here of "
            f"{rows} rows, but returned {describe(logits)}; wrap it in a module that returns them "
            "so, one row for each input, or give loss="
        )
    if torch.is_grad_enabled() and not logits.requires_grad:
        raise InputError(
            "logits must depend on the weights to be scored, but here they do not; let the forward "
            "pass neither detach them nor run in torch.no_grad"
        )
    if logits.dim() > 2:
        logits = logits.movedim(1, -1).flatten(0, -2)
    # The loss is a difference of near numbers: not in bfloat16.
    return logits.float() if precision == "bfloat16" else logits


def _derivable(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise InputError(
            "a Jacobian must be taken at one float tensor, but the network's inputs are "
            f"{describe(inputs)}; choose other targets"
        )
    return inputs.detach().requires_grad_()


def _checked(labels: Tensor, logits: Tensor) -> Tensor:
    """Refuse labels that are no classes of the network; return one for each row of logits."""
    labels, classes = labels.flatten(), logits.shape[1]
    if ((labels < 0) & (labels != IGNORED)).any():
        raise InputError(
            "targets='gt' must come with the labels of the inputs, but there are none; "
            "give labels=, or score with targets='uniform'"
        )
    if len(labels) != len(logits):
        raise InputError(
            f"there must be one label for each answer of the network, but got {len(labels)} labels "
            f"for {len(logits)} rows of logits; give loss= for another task"
        )
    if (highest := int(labels.max())) >= classes:
        raise InputError(
            f"labels must be below the network's {classes} classes, but one is {highest}; "
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
        images += len(logits)
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
def scoring_mode(
    model: nn.Module,
    batch_norm: BatchNormMode,
    task: PruningTask | None = None,
    *,
    twice: bool = False,
) -> Iterator[None]:
    """Put the model in inference mode, with batch norm in the given mode, then restore it.

    Running statistics are not read in mode `batch`, are those of the task's images in mode
    `warm_up`, and are in the end what they were in any mode. What is to be differentiated twice
    needs an attention whose derivative can be.
    """
    modes = {module: module.training for module in model.modules()}
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracking = {norm: norm.track_running_stats for norm in norms}
    # Not by eval(), which modules override to change more (LoRA's merge their weights).
    for module in modes:
        module.training = False
    if batch_norm == "batch":
        for norm in norms:
            norm.training = True
            norm.track_running_stats = False
    try:
        with ExitStack() as contexts:
            if twice:
                contexts.enter_context(sdpa_kernel(SDPBackend.MATH))
            if batch_norm == "warm_up" and task is not None:
                contexts.enter_context(warmed_up(model, task))
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm in norms:
            norm.track_running_stats = tracking[norm]
