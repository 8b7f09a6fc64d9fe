"""Narrow convolutions on wide streams: take the channels that are read, put back the others.

Both are 1×1 convolutions with a fixed one-hot weight, which is exact in every precision (each
sum has one term) and on a CPU, in bfloat16, several times as fast as copying channels. A batch
norm stays behind the scattering: it costs no more at full width, and takes the zeros as it would
in the full network, so that its shift trains where the stream is alive.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

SELECTION_SHARE = 1.0
"""Training cost of a multiply-accumulate of a selection, in those of a 3×3 convolution.

Without a gradient of its weight it has two passes of three, but 1×1 convolutions wait for memory:
measured 38 ms against 40 ms (128 × 32×32 images, bfloat16, 2 cores; the same at 16×16, 8×8)."""

COPY_COST = 32
"""Multiply-accumulates that copying one number costs, for linear layers."""


class Gather(nn.Module):
    """Takes some channels of its input: (N, C, H, W) to (N, taken, H, W), or (N, C) likewise."""

    weight: Tensor
    taken: Tensor

    def __init__(self, taken: Tensor, width: int, like: Tensor):
        """Take the channels `taken` of `width`, in the precision and on the device of `like`."""
        super().__init__()
        self.register_buffer("taken", taken.to(like.device), persistent=False)
        self.register_buffer("weight", one_hot(taken, width, like), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the channels taken."""
        if hidden.dim() == 2:
            return hidden.index_select(1, self.taken)
        return F.conv2d(hidden, self.weight)


class Scatter(nn.Module):
    """Puts its input's channels among zeros: (N, given, H, W) to (N, C, H, W)."""

    weight: Tensor

    def __init__(self, given: Tensor, width: int, like: Tensor):
        """Put channels at `given` of `width`, in the precision and on the device of `like`."""
        super().__init__()
        weight = one_hot(given, width, like).transpose(0, 1).contiguous()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return all channels."""
        return F.conv2d(hidden, self.weight)


def one_hot(taken: Tensor, width: int, like: Tensor) -> Tensor:
    """Return a 1×1 kernel that takes channels, (taken, width, 1, 1)."""
    return F.one_hot(taken, width).to(like.device, like.dtype)[:, :, None, None]


@dataclass(frozen=True)
class Shape:
    """What a layer costs, dense: kernel, and positions before and after it."""

    kernel: int
    before: int
    after: int
    linear: bool


def choose_selection(
    shape: Shape, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[bool, bool]:
    """Return whether gathering, and whether scattering, makes a training step cheaper.

    Args:
        shape: Of the layer.
        rows, columns: Needed of present channels.
    """
    best, fewest = (False, False), float("inf")
    for gathered in (False, True):
        for scattered in (False,) if shape.linear else (False, True):
            reads, writes = columns[not gathered], rows[not scattered]
            cost = float(reads * writes * shape.kernel * shape.after)
            if gathered:
                each = COPY_COST if shape.linear else SELECTION_SHARE * columns[1] * shape.before
                cost += reads * each
            if scattered:
                cost += SELECTION_SHARE * writes * rows[1] * shape.after
            if cost < fewest:
                best, fewest = (gathered, scattered), cost
    return best
