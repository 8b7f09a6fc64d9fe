"""Loss and error of a network on a set of images."""

import torch
import torch.nn.functional as F
from torch import nn

from sculpt.data import ImageSet
from sculpt.training.memory import is_out_of_memory
from sculpt.training.precision import autocast


def evaluate(
    model: nn.Module, images: ImageSet, *, batch_size: int = 1000, precision: str = "float32"
) -> tuple[float, float]:
    """Evaluate (mean cross-entropy in nats, error as a fraction) in inference mode.

    An image counts as misclassified if any of its logits is not finite. The host waits for the
    device once, at the end. Out of memory, batches are halved, which costs only time. `precision`
    is a resolved one, see `sculpt.training.precision`.
    """
    while True:
        try:
            return _evaluate(model, images, batch_size, precision)
        except (RuntimeError, MemoryError) as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        batch_size = -(-batch_size // 2)


@torch.no_grad()
def _evaluate(
    model: nn.Module, images: ImageSet, batch_size: int, precision: str
) -> tuple[float, float]:
    was_training = model.training
    model.eval()
    loss = torch.zeros((), device=images.device)
    wrong = torch.zeros((), device=images.device)
    try:
        with autocast(precision, images.device):
            for inputs, labels in images.batches(batch_size):
                logits = model(inputs).float()
                loss += F.cross_entropy(logits, labels, reduction="sum")
                right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
                wrong += (~right).sum()
    finally:
        model.train(was_training)
    return loss.item() / len(images), wrong.item() / len(images)
