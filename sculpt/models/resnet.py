"""The CIFAR ResNet(k, n) of He et al. 2016, widened by k, with n blocks in each stage."""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from sculpt.errors import InputError, check_choice
from sculpt.registry import MODELS

Shortcut = Literal["zeropad", "projection"]


@MODELS.register("resnet")
def resnet(
    channels: int,
    classes: int,
    *,
    widening: float = 1,
    blocks: int = 3,
    stem_width: int = 16,
    stem_stride: int = 1,
    shortcut: Shortcut = "zeropad",
    conv_bias: bool = True,
) -> nn.Module:
    """Build ResNet(k=widening, n=blocks), version 1 (conv, batch norm, ReLU).

    ResNet20 is n 3, ResNet32 n 5, ResNet56 n 9, ResNet110 n 18, each with k 1.

    Args:
        channels:
            Channels of an input image.
        classes:
            Number of classes.
        widening:
            k ≥ 1, not necessarily whole: the stages have `round(stem_width · k · 2^stage)`
            filters. The stem itself is never widened.
        blocks:
            n ≥ 1, residual blocks in each of the three stages, two 3×3 convolutions each.
        stem_width:
            Filters of the stem; 16 in the paper.
        stem_stride:
            Stride of the stem: 1 up to 32×32 pixels, 2 for 64×64 (Tiny-ImageNet).
        shortcut:
            `zeropad` has no parameters: average-pool by the stride, then zero channels.
            `projection` is a 1×1 convolution and batch norm.
        conv_bias:
            Whether convolutions carry a bias (the counting rule `paper` assumes so).

    Returns:
        A module that maps images (N, channels, H, W) to logits (N, classes).

    Raises:
        InputError: an option is outside its range.
    """
    at_least_1 = {
        "widening": widening,
        "blocks": blocks,
        "stem_width": stem_width,
        "stem_stride": stem_stride,
    }
    for name, value in at_least_1.items():
        if value < 1:
            raise InputError(
                f"{name} must be at least 1, but got {value}; a candidate is wider or deeper "
                "than the base, and a narrower base is a smaller stem_width"
            )
    check_choice("shortcut", shortcut, get_args(Shortcut))
    return ResNet(channels, classes, widening, blocks, stem_width, stem_stride, shortcut, conv_bias)


class ResNet(nn.Module):
    """Stem, three stages of residual blocks, global average pool, linear classifier."""

    def __init__(
        self,
        channels: int,
        classes: int,
        widening: float,
        blocks: int,
        stem_width: int,
        stem_stride: int,
        shortcut: Shortcut,
        conv_bias: bool,
    ):
        super().__init__()
        self.stem = ConvNorm(channels, stem_width, 3, stem_stride, conv_bias)
        self.stem_activation = nn.ReLU()
        stages = []
        width = stem_width
        for stage in range(3):
            stage_width = round(stem_width * widening * 2**stage)
            stage_blocks = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stage_blocks.append(Block(width, stage_width, stride, shortcut, conv_bias))
                width = stage_width
            stages.append(nn.Sequential(*stage_blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        hidden = self.stem_activation(self.stem(images))
        hidden = self.stages(hidden)
        return self.classifier(self.pool(hidden).flatten(1))


class ConvNorm(nn.Sequential):
    """A convolution that keeps the size (up to its stride), and its batch norm."""

    def __init__(self, in_width: int, out_width: int, kernel: int, stride: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(
            in_width, out_width, kernel, stride=stride, padding=kernel // 2, bias=bias
        )
        self.norm = nn.BatchNorm2d(out_width)


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016, Figure 2)."""

    def __init__(
        self, in_width: int, out_width: int, stride: int, shortcut: Shortcut, conv_bias: bool
    ):
        super().__init__()
        self.first = ConvNorm(in_width, out_width, 3, stride, conv_bias)
        self.first_activation = nn.ReLU()
        self.second = ConvNorm(out_width, out_width, 3, 1, conv_bias)
        self.second_activation = nn.ReLU()
        self.shortcut: nn.Module
        # The width changes without a stride where stage 1 is wider than the stem.
        if stride == 1 and in_width == out_width:
            self.shortcut = nn.Identity()
        elif shortcut == "zeropad":
            self.shortcut = ZeroPad(stride, out_width - in_width)
        else:
            self.shortcut = ConvNorm(in_width, out_width, 1, stride, conv_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, out_width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        residual = self.second(self.first_activation(self.first(hidden)))
        return self.second_activation(residual + self.shortcut(hidden))


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
