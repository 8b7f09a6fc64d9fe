"""Depthwise-separable residual networks for small images, as MobileNetV2 (Sandler et al. 2018)."""

from collections import OrderedDict
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.models.activations import Activation, make_activation
from sculpt.models.residual_blocks import ConvNorm
from sculpt.registry import MODELS

STAGE_WIDTHS = (1, 2, 4)
"""Width of each stage, in widths of the stem."""


@MODELS.register("mobile")
def mobile(
    channels: int,
    classes: int,
    *,
    widening: Annotated[float, Field(ge=1, le=1000)] = 1,
    blocks: Annotated[int, Field(ge=1, le=200)] = 3,
    stem_width: Annotated[int, Field(ge=1, le=10_000)] = 16,
    stem_stride: Annotated[int, Field(ge=1, le=64)] = 1,
    expansion: Annotated[float, Field(ge=1, le=100)] = 4,
    activation: Activation = "relu",
) -> nn.Module:
    """Build a network of inverted residuals: 1×1 wider, 3×3 depthwise, 1×1 narrower.

    Three stages as in `resnet`, halving the image twice. Convolutions have no bias, and shortcuts
    no parameters: only blocks that keep size and width have one.

    Args:
        widening: k ≥ 1: the stages have `round(stem_width · k · 2^stage)` channels; the stem is
            never widened.
        blocks: In each stage.
        stem_width: Filters of the stem, a 3×3 convolution.
        stem_stride: Stride of the stem: 1 up to 32×32 pixels, 2 for 64×64.
        expansion: Channels inside of a block, in channels that it is given, rounded.
        activation: Inside of blocks, and after the stem and the last layer; none between blocks.

    Raises:
        InputError: an option is outside its range.
    """
    at_least_1 = {
        "widening": widening,
        "blocks": blocks,
        "stem_width": stem_width,
        "stem_stride": stem_stride,
        "expansion": expansion,
    }
    for name, value in at_least_1.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, but got {value}; raise it")
    width, stages = stem_width, []
    for stage, factor in enumerate(STAGE_WIDTHS):
        stage_width = round(stem_width * widening * factor)
        parts = []
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            parts.append(InvertedResidual(width, stage_width, stride, expansion, activation))
            width = stage_width
        stages.append(nn.Sequential(*parts))
    return nn.Sequential(
        OrderedDict(
            stem=ConvNorm(channels, stem_width, 3, stem_stride, bias=False),
            stem_activation=make_activation(activation),
            stages=nn.Sequential(*stages),
            last=ConvNorm(width, round(width * expansion), 1, 1, bias=False),
            last_activation=make_activation(activation),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(round(width * expansion), classes),
        )
    )


class InvertedResidual(nn.Module):
    """A depthwise convolution between two 1×1 convolutions, the last one without activation."""

    def __init__(
        self, in_width: int, out_width: int, stride: int, expansion: float, activation: Activation
    ):
        super().__init__()
        width = round(in_width * expansion)
        self.expand = ConvNorm(in_width, width, 1, 1, bias=False)
        self.expand_activation = make_activation(activation)
        self.depthwise = ConvNorm(width, width, 3, stride, bias=False, groups=width)
        self.depthwise_activation = make_activation(activation)
        self.project = ConvNorm(width, out_width, 1, 1, bias=False)
        self.has_shortcut = stride == 1 and in_width == out_width

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in_width, H, W) to (N, out_width, ⌈H/stride⌉, ⌈W/stride⌉)."""
        inner = self.expand_activation(self.expand(hidden))
        inner = self.depthwise_activation(self.depthwise(inner))
        result = self.project(inner)
        return hidden + result if self.has_shortcut else result
