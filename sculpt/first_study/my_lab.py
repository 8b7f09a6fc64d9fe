"""Data and a network of your own, for the study beside this file: put yours in their place.

Keyword arguments are options in the study, under `data` and `model`, and those of the network are
parameters of its space, too. What a study can express: docs/how-to/own-network.md.
"""

import torch
from torch import Tensor, nn


def load(*, count: int = 400) -> tuple[Tensor, Tensor]:
    """Make waves in noise, and return them with the frequency that is hidden in each.

    Inputs are (N, ...): images (N, C, H, W), series (N, C, T), rows of a table (N, F). Targets are
    whole numbers (N,) for classes, otherwise numbers (N,) or (N, K). A fifth becomes the test set;
    return two such pairs, (train, test), where yours is known.

    Args:
        count: Number of waves.
    """
    stream = torch.Generator().manual_seed(0)
    frequency = torch.rand(count, generator=stream)
    waves = torch.sin(frequency[:, None, None] * torch.arange(64.0))
    return waves + 0.3 * torch.randn(count, 2, 64, generator=stream), frequency


def make_net(input_shape: tuple[int, ...], outputs: int, *, width: int = 8) -> nn.Module:
    """Return a network from (N, *input_shape) to (N, outputs).

    Both are given by the data. Any layers do; weights of convolutions and linear layers are
    pruned.

    Args:
        input_shape: Shape of one input.
        outputs: Classes, or numbers to be told.
        width: Channels of the first layer.
    """
    return nn.Sequential(
        nn.Conv1d(input_shape[0], width, 5, stride=2),
        nn.ReLU(),
        nn.Conv1d(width, 2 * width, 5, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Linear(8 * width, outputs),
    )
