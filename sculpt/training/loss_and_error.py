"""Loss and error of a network on a set of images, or loss and metric of another task."""

import torch
from torch import Tensor, nn

from sculpt.arithmetic import drawn_by
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

    Of images of another task it returns (mean loss, metric); a metric that is not finite is
    `WORST`, so that such a network ranks last.
    """
    while True:
        try:
            return _evaluate(model, images, batch_size, precision)
        except (RuntimeError, MemoryError) as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        batch_size = -(-batch_size // 2)


WORST = torch.finfo(torch.float32).max


@torch.no_grad()
def _evaluate(
    model: nn.Module, images: ImageSet, batch_size: int, precision: str
) -> tuple[float, float]:
    was_training = model.training
    model.eval()
    loss = torch.zeros((), device=images.device)
    total = torch.zeros((), device=images.device)
    task, outputs = images.task, list[Tensor]()
    try:
        # What layers draw even in inference (dropout by its function) is the same each time.
        with autocast(precision, images.device), drawn_by(0):
            for inputs, labels in images.batches(batch_size):
                found = model(inputs).float()
                loss += task.summed_loss(found, labels)
                summed = task.summed_metric(found, labels)
                if summed is None:
                    outputs.append(found)
                else:
                    total += summed
    finally:
        model.train(was_training)
    if outputs:
        metric = task.metric_of_set(torch.cat(outputs), images.labels)
    else:
        metric = task.metric_of_mean(total.item() / len(images))
    return loss.item() / len(images), metric if abs(metric) < WORST else WORST
