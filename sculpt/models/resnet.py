"""The CIFAR ResNet(k, n), widened by k, with n blocks in each of its three stages.

Version 1 is He et al. 2016, *Deep Residual Learning*; version 2, with pre-activation, He et al.
2016b, *Identity Mappings in Deep Residual Networks*, its details as in Zagoruyko and Komodakis
2016, *Wide Residual Networks*. A convolution has the same name in both.
"""

from typing import Literal, get_args

from torch import Tensor, nn

from sculpt.errors import InputError, check_choice
from sculpt.models.activations import Activation, make_activation
from sculpt.models.residual_blocks import (
    Block,
    ConvNorm,
    PreActivationBlock,
    Shortcut,
    bare_convolution,
)
from sculpt.registry import MODELS

Version = Literal["v1", "v2"]


@MODELS.register("resnet")
def resnet(
    channels: int,
    classes: int,
    *,
    widening: float = 1,
    blocks: int | list[int] = 3,
    stem_width: int = 16,
    stem_stride: int = 1,
    version: Version = "v1",
    shortcut: Shortcut = "zeropad",
    activation: Activation = "relu",
    conv_bias: bool = True,
) -> nn.Module:
    """Build ResNet(k=widening, n=blocks).

    ResNet20 is n 3, ResNet32 n 5, ResNet56 n 9, ResNet110 n 18, each with k 1.

    Args:
        channels: Channels of an input image.
        classes: Number of classes.
        widening: k ≥ 1, not necessarily whole: the stages have `round(stem_width · k · 2^stage)`
            filters. The stem itself is never widened.
        blocks: n ≥ 1, residual blocks in each of the three stages, two 3×3 convolutions each; a
            list gives each stage its own number.
        stem_width: Filters of the stem; 16 in the paper.
        stem_stride: Stride of the stem: 1 up to 32×32 pixels, 2 for 64×64 (Tiny-ImageNet).
        version: `v1`: convolution, batch norm, activation. `v2`: batch norm, activation,
            convolution, and one more batch norm and activation before the pool.
        shortcut: `zeropad` has no parameters: average-pool by the stride, then zero channels.
            `projection` is a 1×1 convolution, followed by a batch norm in version 1 only.
        activation: ReLU in the papers.
        conv_bias: Whether convolutions carry a bias (the counting rule `paper` assumes so).

    Returns:
        A module that maps images (N, channels, H, W) to logits (N, classes).

    Raises:
        InputError: an option is outside its range.
    """
    stage_blocks = blocks if isinstance(blocks, list) else [blocks] * 3
    if len(stage_blocks) != 3:
        raise InputError(
            f"blocks must be one number, or three of them, one for each stage, but got {blocks}"
        )
    at_least_1 = {
        "widening": widening,
        "blocks": min(stage_blocks),
        "stem_width": stem_width,
        "stem_stride": stem_stride,
    }
    for name, value in at_least_1.items():
        if value < 1:
            given = blocks if name == "blocks" else value
            raise InputError(
                f"{name} must be at least 1, but got {given}; a candidate is wider or deeper "
                "than the base, and a narrower base is a smaller stem_width"
            )
    check_choice("version", version, get_args(Version))
    check_choice("shortcut", shortcut, get_args(Shortcut))
    return ResNet(
        channels,
        classes,
        [stem_width, *(round(stem_width * widening * 2**stage) for stage in range(3))],
        stage_blocks,
        stem_stride,
        version,
        shortcut,
        conv_bias,
        activation,
    )


class ResNet(nn.Module):
    """Stem, three stages of residual blocks, global average pool, linear classifier."""

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: list[int],
        blocks: list[int],
        stem_stride: int,
        version: Version,
        shortcut: Shortcut,
        conv_bias: bool,
        activation: Activation,
    ):
        """Build it; `widths` are those of the stem and of each stage, `blocks` of each stage."""
        super().__init__()
        self.version = version
        width, *stage_widths = widths
        if version == "v1":
            self.stem: nn.Module = ConvNorm(channels, width, 3, stem_stride, conv_bias)
            self.stem_activation = make_activation(activation)
        else:
            # The first block's own batch norm is what comes next.
            self.stem = bare_convolution(channels, width, 3, stem_stride, conv_bias)
        block_type = Block if version == "v1" else PreActivationBlock
        stages = []
        for stage, (stage_width, count) in enumerate(zip(stage_widths, blocks, strict=True)):
            stage_blocks = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                stage_blocks.append(
                    block_type(width, stage_width, stride, shortcut, conv_bias, activation)
                )
                width = stage_width
            stages.append(nn.Sequential(*stage_blocks))
        self.stages = nn.Sequential(*stages)
        if version == "v2":
            self.last_norm = nn.BatchNorm2d(width)
            self.last_activation = make_activation(activation)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        hidden = self.stem(images)
        if self.version == "v1":
            hidden = self.stages(self.stem_activation(hidden))
        else:
            hidden = self.last_activation(self.last_norm(self.stages(hidden)))
        return self.classifier(self.pool(hidden).flatten(1))
