"""Network families. Each file registers one, as a function

    family(channels, classes, *, option=default, ...) -> torch.nn.Module

that maps images (N, channels, H, W) to logits (N, classes). The keyword-only parameters are the
options that a study or a search space may set. A family without convolutions, which fits images
of one size only, has `pixels` (height × width) as its third parameter. A family builds the
*structure*; its weights are drawn later, by an initializer.
"""

from inspect import signature
from typing import Any

from torch import nn

from sculpt.registry import MODELS, options_of


def build_network(
    family: str, *, channels: int, classes: int, pixels: int, **options: Any
) -> nn.Module:
    """Build a network of a registered family for images of a given shape.

    Raises:
        UnknownNameError: there is no such family.
        InputError: an option is outside its range.
    """
    build = MODELS.get(family)
    facts = {"channels": channels, "classes": classes, "pixels": pixels}
    asked = signature(build).parameters.keys() - options_of(build).keys()
    return build(*(fact for name, fact in facts.items() if name in asked), **options)
