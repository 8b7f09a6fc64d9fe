"""The training loop: images on the device, augmented in batch, pruned weights held at zero."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import nn

from sculpt.config import Training
from sculpt.data import Splits, augment
from sculpt.errors import NumericsError
from sculpt.pruning.masks import Masks
from sculpt.seeding import derive_seed
from sculpt.training.evaluation import evaluate
from sculpt.training.schedules import make_schedule

MOST_BYTES_NORMALIZED = 2**30
"""A training set that is not augmented is kept as floats up to this size."""


@dataclass(frozen=True)
class Epoch:
    """What an evaluated pass over the training set gave. Losses in nats, errors as fractions."""

    epoch: int
    """Counted from 1; 0 is a network that was not trained."""
    learning_rate: float
    """At the last step."""
    train_loss: float | None
    """Mean over the pass, augmented images, weights changing meanwhile; None without a pass."""
    train_error: float | None
    val_loss: float
    val_error: float
    test_error: float | None
    """None unless the study's protocol reads the test images while training."""
    seconds: float
    """Training and evaluation, since the epoch before in the history."""
    images_per_second: float | None
    """Training alone."""


def train(
    model: nn.Module,
    masks: Masks,
    splits: Splits,
    recipe: Training,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train a masked network in place; pruned weights are zero after every step.

    The order of the images and their augmentation follow from `seed` alone, not from the
    network, so that networks trained with one seed are paired. The last, smaller batch of a
    pass is left out (its batch statistics are noisy), unless it is the only one.

    Args:
        model:
            On the device of the images; its pruned weights are zero.
        masks:
            Keyed by parameter name.
        splits:
            `train` is trained on and `validation` evaluated; `test` is read only under the
            protocol `lowest_test`.
        recipe:
            Optimiser, schedule, augmentation, precision, when to evaluate.
        seed:
            Of data order and augmentation.
        on_epoch:
            Called after each evaluation.

    Returns:
        One entry per evaluation, after every `recipe.evaluate_every` epochs and the last one.

    Raises:
        NumericsError: the training or validation loss of an epoch is not finite.
    """
    if recipe.epochs == 0:
        return [_evaluated(model, splits, recipe, Epoch(0, 0.0, None, None, 0, 0, None, 0, None))]
    images, device = splits.train, splits.train.device
    batch_size = min(recipe.batch_size, len(images))
    steps = len(images) // batch_size
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = make_schedule(recipe.schedule, optimizer, recipe.epochs * steps)
    parameters = dict(model.named_parameters())
    sparse = [name for name, mask in masks.items() if not mask.all()]
    pruned_weights = [parameters[name].detach() for name in sparse]
    keep = [masks[name].to(parameters[name].dtype) for name in sparse]
    augmentation = torch.Generator(device).manual_seed(derive_seed(seed, "augmentation"))
    augmented = recipe.flip or recipe.translate > 0 or recipe.cutout > 0
    # Images that never change are normalised once, where they fit as floats.
    normalized = None
    if not augmented and images.images.numel() * 4 <= MOST_BYTES_NORMALIZED:
        # Channels last in memory, and left so when a batch is taken.
        normalized = images.inputs(slice(None)).permute(0, 2, 3, 1).contiguous()
    history: list[Epoch] = []
    start = perf_counter()

    for number in range(1, recipe.epochs + 1):
        pass_start = perf_counter()
        model.train()
        loss_sum = torch.zeros((), device=device)
        wrong = torch.zeros((), device=device)
        for batch in _shuffled(len(images), seed, number)[: steps * batch_size].split(batch_size):
            indices = batch.to(device)
            labels = images.labels[indices]
            if normalized is not None:
                inputs = normalized.index_select(0, indices).permute(0, 3, 1, 2)
            else:
                raw = augment(
                    images.images[indices],
                    flip=recipe.flip,
                    translate=recipe.translate,
                    cutout=recipe.cutout,
                    generator=augmentation,
                )
                inputs = images.normalize(raw)
            with torch.autocast(
                device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"
            ):
                logits = model(inputs)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
            if pruned_weights:
                torch._foreach_mul_(pruned_weights, keep)
            loss_sum += loss.detach()
            wrong += (logits.detach().argmax(1) != labels).sum()

        # The only moment of an epoch at which the host waits for the device.
        train_loss, seen = loss_sum.item() / steps, steps * batch_size
        _check_finite("training", train_loss, number, recipe)
        if number % recipe.evaluate_every and number != recipe.epochs:
            continue
        trained = Epoch(
            epoch=number,
            learning_rate=rate,
            train_loss=train_loss,
            train_error=wrong.item() / seen,
            val_loss=math.nan,
            val_error=math.nan,
            test_error=None,
            seconds=0.0,
            images_per_second=seen / (perf_counter() - pass_start),
        )
        evaluated = _evaluated(model, splits, recipe, trained)
        history.append(replace(evaluated, seconds=perf_counter() - start))
        start = perf_counter()
        on_epoch(history[-1])
    return history


def evaluations(recipe: Training) -> int:
    """Return how many entries the history of a run has."""
    return max(1, math.ceil(recipe.epochs / recipe.evaluate_every))


def _evaluated(model: nn.Module, splits: Splits, recipe: Training, trained: Epoch) -> Epoch:
    """Return an epoch with its losses and errors on the images that it was not trained on."""
    val_loss, val_error = evaluate(model, splits.validation, precision=recipe.precision)
    # A pass's last step shows in the validation loss alone.
    _check_finite("validation", val_loss, trained.epoch, recipe)
    test_error = None
    if recipe.protocol == "lowest_test":
        _, test_error = evaluate(model, splits.test, precision=recipe.precision)
    return replace(trained, val_loss=val_loss, val_error=val_error, test_error=test_error)


def _check_finite(which: str, loss: float, epoch: int, recipe: Training) -> None:
    if not math.isfinite(loss):
        raise NumericsError(
            f"the {which} loss must stay finite, but is {loss} in epoch {epoch}; "
            f"lower training.learning_rate (now {recipe.learning_rate})"
        )


def _shuffled(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of one epoch, drawn on the CPU so that it is the same on all devices."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "data order", epoch))
    return torch.randperm(count, generator=generator)
