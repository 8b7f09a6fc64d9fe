"""The CIFAR ResNet(k, n), widened by k, with n blocks in each of its stages; WRN; ResNet18.

Version 1 is He et al. 2016, *Deep Residual Learning*; version 2, with pre-activation, He et al.
2016b, *Identity Mappings in Deep Residual Networks*, its details as in Zagoruyko and Komodakis
2016, *Wide Residual Networks*. A convolution has the same name in both.
"""

from collections import OrderedDict
from typing import Annotated, Literal, get_args

from pydantic import Field
from torch import Tensor, nn

from sculpt.errors import InputError, check_choice
from sculpt.models.activations import Activation, make_activation
from sculpt.models.residual_blocks import (
    Block,
    ConvNorm,
    PreActivationBlock,
    Shortcut,
)
from sculpt.registry import MODELS

Version = Literal["v1", "v2"]
Widening = Annotated[float, Field(ge=1, le=1000)]
MOST_BLOCKS = 200
"""In a stage: ResNet1202, the deepest of the paper, has so many."""
Blocks = Annotated[int, Field(ge=1, le=MOST_BLOCKS)]


@MODELS.register("resnet")
def resnet(
    channels: int,
    classes: int,
    *,
    widening: Widening = 1,
    blocks: Blocks | Annotated[list[Blocks], Field(min_length=3, max_length=3)] = 3,
    stem_width: Annotated[int, Field(ge=1, le=10_000)] = 16,
    stem_stride: Annotated[int, Field(ge=1, le=64)] = 1,
    version: Version = "v1",
    shortcut: Shortcut = "zeropad",
    activation: Activation = "relu",
    conv_bias: bool = True,
) -> nn.Module:
    """Build ResNet(k=widening, n=blocks).

    ResNet20 is n 3, ResNet32 n 5, ResNet56 n 9, ResNet110 n 18, each with k 1.

    Args:
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
        conv_bias: Whether convolutions carry a bias (assumed by the counting rule `paper`).

    Raises:
        InputError: an option is outside its range.
    """
    return _build(
        channels,
        classes,
        stages=3,
        widening=widening,
        blocks=blocks,
        stem_width=stem_width,
        stem_stride=stem_stride,
        version=version,
        shortcut=shortcut,
        activation=activation,
        conv_bias=conv_bias,
    )


@MODELS.register("resnet18")
def resnet18(
    channels: int,
    classes: int,
    *,
    widening: Widening = 1,
    blocks: Blocks | Annotated[list[Blocks], Field(min_length=4, max_length=4)] = 2,
    stem_width: Annotated[int, Field(ge=1, le=10_000)] = 64,
    stem_stride: Annotated[int, Field(ge=1, le=64)] = 1,
    shortcut: Shortcut = "projection",
    activation: Activation = "relu",
    conv_bias: bool = False,
) -> nn.Module:
    """Build the ResNet18 of ImageNet for images of 32 to 64 pixels: four stages, no max-pooling.

    A 3×3 convolution is the stem, in place of one of 7×7 and a pooling, which small images would
    not survive. 11.2 million parameters; a list of blocks [3, 4, 6, 3] makes ResNet34.

    Args:
        widening, stem_stride, shortcut, activation, conv_bias: As in `resnet`.
        blocks: In each of the four stages, two 3×3 convolutions each, or a list of four numbers.
        stem_width: Filters of the stem; the stages have `round(stem_width · k · 2^stage)`.

    Raises:
        InputError: an option is outside its range.
    """
    return _build(
        channels,
        classes,
        stages=4,
        widening=widening,
        blocks=blocks,
        stem_width=stem_width,
        stem_stride=stem_stride,
        version="v1",
        shortcut=shortcut,
        activation=activation,
        conv_bias=conv_bias,
    )


def _build(
    channels: int,
    classes: int,
    *,
    stages: int,
    widening: float,
    blocks: int | list[int],
    stem_width: int,
    stem_stride: int,
    version: Version,
    shortcut: Shortcut,
    activation: Activation,
    conv_bias: bool,
) -> nn.Module:
    stage_blocks = blocks if isinstance(blocks, list) else [blocks] * stages
    if len(stage_blocks) != stages:
        raise InputError(
            f"blocks must be one number, or {stages} of them, one for each stage, but got {blocks}"
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
    v1 = version == "v1"
    # In version 2 the first block's own batch norm follows the stem.
    stem = ConvNorm(channels, stem_width, 3, stem_stride, conv_bias, norm=v1)
    block_type, width = Block if v1 else PreActivationBlock, stem_width
    parts_of_stages = []
    for stage, count in enumerate(stage_blocks):
        stage_width = round(stem_width * widening * 2**stage)
        parts = []
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            parts.append(block_type(width, stage_width, stride, shortcut, conv_bias, activation))
            width = stage_width
        parts_of_stages.append(nn.Sequential(*parts))
    modules: dict[str, nn.Module] = {"stem": stem}
    if v1:
        modules["stem_activation"] = make_activation(activation)
    modules["stages"] = nn.Sequential(*parts_of_stages)
    if not v1:
        modules["last_norm"] = nn.BatchNorm2d(width)
        modules["last_activation"] = make_activation(activation)
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["classifier"] = nn.Linear(width, classes)
    return ResNet(OrderedDict(modules))


@MODELS.register("wide_resnet")
def wide_resnet(
    channels: int,
    classes: int,
    *,
    depth: Annotated[int, Field(ge=10, le=6 * MOST_BLOCKS + 4)] = 16,
    widening: Widening = 1,
    stem_width: Annotated[int, Field(ge=1, le=10_000)] = 16,
    stem_stride: Annotated[int, Field(ge=1, le=64)] = 1,
    activation: Activation = "relu",
    conv_bias: bool = True,
) -> nn.Module:
    """Build WRN-depth-k (Zagoruyko and Komodakis 2016): pre-activation, projection shortcuts.

    Args:
        depth: 6n + 4 for n blocks in each of the three stages: 10, 16, 22, 28, 34, 40.
        widening, stem_width, stem_stride, activation: As in `resnet`.
        conv_bias: Whether convolutions carry a bias: assumed by the counting rule `paper`, not by
            the published sizes.

    Raises:
        InputError: an option is outside its range.
    """
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest != 0:
        near = "10" if blocks < 1 else f"{6 * blocks + 4} or {6 * blocks + 10}"
        raise InputError(
            f"depth must be 6n + 4 for a whole n of at least 1, but got {depth}; use {near}"
        )
    return resnet(
        channels,
        classes,
        widening=widening,
        blocks=blocks,
        stem_width=stem_width,
        stem_stride=stem_stride,
        version="v2",
        shortcut="projection",
        activation=activation,
        conv_bias=conv_bias,
    )


class ResNet(nn.Sequential):
    """Stem, stages of residual blocks, global average pool, linear classifier."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        *body, classifier = self
        for module in body:
            images = module(images)
        return classifier(images.flatten(1))
