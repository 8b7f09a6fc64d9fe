"""Network families. Each file registers one, as a function

    family(channels, classes, *, option=default, ...) -> torch.nn.Module

whose keyword-only parameters are the options that a study or a search space may set. A family
that has no convolution to take images of any size asks for their `pixels` too, as its third
parameter. A family builds the *structure*; its weights are drawn later, by an initializer.
"""

from inspect import Parameter, signature
from typing import Any

from torch import nn

from sculpt.registry import MODELS


def build_network(
    family: str, *, channels: int, classes: int, pixels: int, **options: Any
) -> nn.Module:
    """Build a network of a registered family for images of a given shape.

    Args:
        family: A registered name.
        channels: Of an image.
        classes: Outputs of the network.
        pixels: Height × width of an image; only some families ask for it.
        options: The family's own.

    Raises:
        UnknownNameError: there is no such family.
        InputError: an option is outside its range.
    """
    build = MODELS.get(family)
    facts = {"channels": channels, "classes": classes, "pixels": pixels}
    asked = [
        name
        for name, parameter in signature(build).parameters.items()
        if parameter.kind is not Parameter.KEYWORD_ONLY
    ]
    return build(*(facts[name] for name in asked), **options)
