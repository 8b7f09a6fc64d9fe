"""Batch norm with statistics of the images that a network is scored on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sculpt.diagnostics.arguments import call
from sculpt.pruning.task import PruningTask


@contextmanager
def warmed_up(model: nn.Module, task: PruningTask) -> Iterator[None]:
    """Give batch norms the statistics of the task's images, in a context.

    Gollini Navarrete et al. 2025 (arXiv 2502.11450) pass the training images through the fresh
    network once before they score it, in inference mode, with what its batch norms have then seen:
    fewer layers collapse. They average the batches exponentially, from the fresh (0, 1) on; here,
    every batch counts the same. Afterwards the statistics are as they were.

    Args:
        model: In inference mode, and so it stays; weights are not changed.
        task: Its batches are read once, if the network has batch norms; each needs two values for
            each channel at least.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    saved = [
        (norm, norm.momentum, {key: buffer.clone() for key, buffer in norm.named_buffers()})
        for norm in norms
    ]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a mean over all batches
            norm.training = True
        if norms:
            with torch.no_grad():
                for inputs, _ in task.batches():
                    if task.loss is None:
                        call(model, inputs)
                    else:
                        task.loss(model, inputs)
        for norm in norms:
            norm.training = False
        yield
    finally:
        for norm, momentum, buffers in saved:
            norm.momentum = momentum
            norm.training = False
            for key, buffer in norm.named_buffers():
                buffer.copy_(buffers[key])
