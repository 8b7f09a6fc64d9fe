"""The training loop: images on the device, augmented in batch, pruned weights held at zero."""

import math
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training set gave. Losses in nats, errors as fractions."""

    epoch: int
    """Counted from 1."""
    learning_rate: float
    """At the last step."""
    train_loss: float
    """Mean over the pass, augmented images, weights changing meanwhile."""
    train_error: float
    val_loss: float
    val_error: float
    seconds: float
    """Training and evaluation."""
    images_per_second: float
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
            `train` is trained on and `validation` evaluated after each epoch; `test` is not read.
        recipe:
            Optimiser, schedule, augmentation, precision.
        seed:
            Of data order and augmentation.
        on_epoch:
            Called after each epoch.

    Raises:
        NumericsError: the training or validation loss of an epoch is not finite.
    """
    images, device = splits.train, splits.train.device
    batch_size = min(recipe.batch_size, len(images))
    steps = len(images) // batch_size
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        foreach=True,
    )
    schedule = make_schedule(recipe.schedule, optimizer, recipe.epochs * steps)
    parameters = dict(model.named_parameters())
    sparse = [name for name, mask in masks.items() if not mask.all()]
    pruned_weights = [parameters[name].detach() for name in sparse]
    keep = [masks[name].to(parameters[name].dtype) for name in sparse]
    augmentation = torch.Generator(device).manual_seed(derive_seed(seed, "augmentation"))
    history = []

    for number in range(1, recipe.epochs + 1):
        start = perf_counter()
        model.train()
        loss_sum = torch.zeros((), device=device)
        wrong = torch.zeros((), device=device)
        for batch in _shuffled(len(images), seed, number)[: steps * batch_size].split(batch_size):
            indices = batch.to(device)
            raw, labels = images.images[indices], images.labels[indices]
            raw = augment(
                raw,
                flip=recipe.flip,
                translate=recipe.translate,
                cutout=recipe.cutout,
                generator=augmentation,
            )
            with torch.autocast(
                device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"
            ):
                logits = model(images.normalize(raw))
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
        trained = perf_counter()
        val_loss, val_error = evaluate(model, splits.validation, precision=recipe.precision)
        # A pass's last step shows in the validation loss alone.
        for name, loss_of_pass in (("training", train_loss), ("validation", val_loss)):
            if not math.isfinite(loss_of_pass):
                raise NumericsError(
                    f"the {name} loss must stay finite, but is {loss_of_pass} in epoch {number}; "
                    f"lower training.learning_rate (now {recipe.learning_rate})"
                )
        history.append(
            Epoch(
                epoch=number,
                learning_rate=rate,
                train_loss=train_loss,
                train_error=wrong.item() / seen,
                val_loss=val_loss,
                val_error=val_error,
                seconds=perf_counter() - start,
                images_per_second=seen / (trained - start),
            )
        )
        on_epoch(history[-1])
    return history


def _shuffled(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of one epoch, drawn on the CPU so that it is the same on all devices."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "data order", epoch))
    return torch.randperm(count, generator=generator)
