"""VGG16 for small images, with 1×1 convolutions (Simonyan and Zisserman 2015, configuration C)."""

from collections import OrderedDict
from typing import Annotated

from pydantic import Field
from torch import nn

from sculpt.errors import InputError
from sculpt.models.activations import Activation, make_activation
from sculpt.registry import MODELS

# Width and kernel sizes of the convolutions of each group; a pooling ends it.
GROUPS = [(64, [3, 3]), (128, [3, 3]), (256, [3, 3, 1]), (512, [3, 3, 1]), (512, [3, 3, 1])]
CLASSIFIER_WIDTHS = [512, 512]


@MODELS.register("vgg16")
def vgg16(
    channels: int,
    classes: int,
    *,
    widening: Annotated[float, Field(ge=1 / 64, le=1000)] = 1,
    batch_norm: bool = True,
    activation: Activation = "relu",
) -> nn.Module:
    """Build VGG16: thirteen convolutions in five groups, then three linear layers.

    Five times, 2×2 max-pooling halves the image; an odd size is rounded up, so that 28
    pixels (14, 7, 4, 2, 1) are not pooled away. 32 pixels end as one; where more are left (2×2 of
    64), their average goes to the classifier, whose inputs are always 512.

    Args:
        widening: A factor on the width of every layer but the last, rounded; may be below 1.
        batch_norm: Whether a batch norm follows every layer but the last, linear ones too, as in
            the code of Lee et al. 2020.
        activation: After every layer but the last.

    Raises:
        InputError: an option is outside its range.
    """
    narrowest = GROUPS[0][0]
    if not widening >= 1 / narrowest:
        raise InputError(
            f"widening must be at least 1/{narrowest}, or layers have no units, but got {widening}"
        )

    def layer(name: str, weighted: nn.Module, norm: nn.Module) -> nn.Sequential:
        parts: OrderedDict[str, nn.Module] = OrderedDict({name: weighted})
        if batch_norm:
            parts["norm"] = norm
        parts["activation"] = make_activation(activation)
        return nn.Sequential(parts)

    width = channels
    groups = []
    for group_width, kernels in GROUPS:
        layers: list[nn.Module] = []
        for kernel in kernels:
            in_width, width = width, round(group_width * widening)
            convolution = nn.Conv2d(in_width, width, kernel, padding=kernel // 2)
            layers.append(layer("conv", convolution, nn.BatchNorm2d(width)))
        groups.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
    classifier: list[nn.Module] = []
    for hidden_width in CLASSIFIER_WIDTHS:
        in_width, width = width, round(hidden_width * widening)
        classifier.append(layer("linear", nn.Linear(in_width, width), nn.BatchNorm1d(width)))
    classifier.append(nn.Linear(width, classes))
    return nn.Sequential(
        OrderedDict(
            groups=nn.Sequential(*groups),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(*classifier),
        )
    )
