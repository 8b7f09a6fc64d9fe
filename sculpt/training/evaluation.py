"""Loss and error of a network on a set of images."""

import torch
import torch.nn.functional as F
from torch import nn

from sculpt.data import ImageSet


@torch.no_grad()
def evaluate(
    model: nn.Module, images: ImageSet, *, batch_size: int = 1000, precision: str = "float32"
) -> tuple[float, float]:
    """Return (mean cross-entropy in nats, error as a fraction) in inference mode.

    The device is waited for once, at the end.
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), device=images.device)
    wrong = torch.zeros((), device=images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        for inputs, labels in images.batches(batch_size):
            logits = model(inputs).float()
            loss += F.cross_entropy(logits, labels, reduction="sum")
            wrong += (logits.argmax(1) != labels).sum()
    model.train(was_training)
    return loss.item() / len(images), wrong.item() / len(images)
