"""Wide residual networks, WRN-depth-k (Zagoruyko and Komodakis 2016)."""

from torch import nn

from sculpt.errors import InputError
from sculpt.models.activations import Activation
from sculpt.models.resnet import resnet
from sculpt.registry import MODELS


@MODELS.register("wide_resnet")
def wide_resnet(
    channels: int,
    classes: int,
    *,
    depth: int = 16,
    widening: float = 1,
    stem_width: int = 16,
    stem_stride: int = 1,
    activation: Activation = "relu",
    conv_bias: bool = True,
) -> nn.Module:
    """Build WRN-depth-k: the pre-activation ResNet(k, n) with projection shortcuts.

    Args:
        depth: 6n + 4 for n blocks in each of the three stages: 10, 16, 22, 28, 34, 40.
        widening: k ≥ 1, of the stages; the stem is not widened.
        stem_width, stem_stride, activation: As in `resnet`.
        conv_bias: Whether convolutions carry a bias; the counting rule `paper` assumes so, the
            published sizes that none does.

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
