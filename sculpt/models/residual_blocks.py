"""Residual blocks of both versions of ResNet, and their parts."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sculpt.models.activations import Activation, make_activation

Shortcut = Literal["zeropad", "projection"]


class ConvNorm(nn.Sequential):
    """A convolution that keeps the size (up to its stride), and its batch norm if `norm`."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel: int,
        stride: int,
        bias: bool,
        norm: bool = True,
        groups: int = 1,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, kernel, stride, kernel // 2, 1, groups, bias)
        if norm:
            self.norm = nn.BatchNorm2d(out_width)


class NormConv(nn.Sequential):
    """A batch norm, an activation, and a 3×3 convolution that keeps the size (up to its stride)."""

    def __init__(
        self, in_width: int, out_width: int, stride: int, bias: bool, activation: Activation
    ):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_width)
        self.activation = make_activation(activation)
        self.conv = nn.Conv2d(in_width, out_width, 3, stride, 1, bias=bias)


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016, Figure 2)."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        stride: int,
        shortcut: Shortcut,
        conv_bias: bool,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.first = ConvNorm(in_width, out_width, 3, stride, conv_bias)
        self.first_activation = make_activation(activation)
        self.second = ConvNorm(out_width, out_width, 3, 1, conv_bias)
        self.second_activation = make_activation(activation)
        self.shortcut = make_shortcut(shortcut, in_width, out_width, stride, conv_bias, norm=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, out_width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        residual = self.second(self.first_activation(self.first(hidden)))
        return self.second_activation(residual + self.shortcut(hidden))


class PreActivationBlock(nn.Module):
    """A block with batch norms and activations first (He et al. 2016b, Figure 1b).

    Shortcuts without parameters take the raw input. A projection takes it normalised and
    activated, and has no batch norm of its own, as in wide residual networks.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        stride: int,
        shortcut: Shortcut,
        conv_bias: bool,
        activation: Activation = "relu",
    ):
        super().__init__()
        self.first = NormConv(in_width, out_width, stride, conv_bias, activation)
        self.second = NormConv(out_width, out_width, 1, conv_bias, activation)
        self.shortcut = make_shortcut(shortcut, in_width, out_width, stride, conv_bias, norm=False)
        self.projects = not isinstance(self.shortcut, nn.Identity | ZeroPad)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, out_width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        activated = self.first.activation(self.first.norm(hidden))
        residual = self.second(self.first.conv(activated))
        return residual + self.shortcut(activated if self.projects else hidden)


def make_shortcut(
    kind: Shortcut, in_width: int, out_width: int, stride: int, bias: bool, norm: bool
) -> nn.Module:
    """Make the identity where neither size nor width changes, else the given kind."""
    # The width changes without a stride where stage 1 is wider than the stem.
    if stride == 1 and in_width == out_width:
        return nn.Identity()
    if kind == "zeropad":
        return ZeroPad(stride, out_width - in_width)
    return ConvNorm(in_width, out_width, 1, stride, bias, norm)


class ZeroPad(nn.Module):
    """The shortcut without parameters: average-pool by the stride, append zero channels."""

    def __init__(self, stride: int, extra_channels: int):
        super().__init__()
        self.stride = stride
        self.extra_channels = extra_channels

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + extra_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        if self.stride > 1:
            # ceil_mode: a strided 3×3 convolution rounds an odd size up.
            hidden = F.avg_pool2d(hidden, self.stride, ceil_mode=True)
        return F.pad(hidden, (0, 0, 0, 0, 0, self.extra_channels))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, extra_channels={self.extra_channels}"
