"""Network families. Each file registers one, as a function

    family(channels, classes, *, option=default, ...) -> torch.nn.Module

that maps images (N, channels, H, W) to logits (N, classes). The keyword-only parameters are the
options that a study or a search space may set. A family without convolutions, which fits images
of one size only, has `pixels` (height × width) as its third parameter. A family builds the
*structure*; its weights are drawn later, by an initializer. The family `import` (`imported.py`)
stands for any callable that returns a module: it needs no file here, and takes any inputs.
"""

from collections.abc import Mapping
from inspect import signature
from math import prod
from typing import Any

from torch import nn

from sculpt.registry import MODELS, options_of


def build_network(
    family: str, *, channels: int, classes: int, pixels: int, **options: Any
) -> nn.Module:
    """Build a network of a registered family for images of a given shape; see `build_for`."""
    return build_for(family, (channels, pixels), classes, options)


def build_for(
    family: str, shape: tuple[int, ...], classes: int, options: Mapping[str, Any]
) -> nn.Module:
    """Build a network of a registered family for inputs of a given shape.

    Args:
        family: Its name.
        shape: Shape of one input: channels (or features), then its extent if it has any, as
            (channels, height, width).
        classes: Classes, or in another task than classification the outputs of the network.
        options: Of the family.

    Raises:
        UnknownNameError: there is no such family.
        InputError: an option is outside its range.
    """
    build = MODELS.get(family)
    facts: dict[str, Any] = {
        "channels": shape[0],
        "classes": classes,
        "pixels": prod(shape[1:]),
        "input_shape": shape,
    }
    asked = signature(build).parameters.keys() - options_of(build).keys()
    return build(*(fact for name, fact in facts.items() if name in asked), **options)
