"""Networks of a callable of the user's own."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from sculpt.errors import InputError
from sculpt.registry import FACTS, IMPORT, MODELS, REFERENCE, call_imported, imported, keywords_of


@MODELS.register(IMPORT)
def imported_network(
    classes: int,
    input_shape: tuple[int, ...],
    /,
    *,
    factory: Annotated[str, Field(pattern=REFERENCE)],
    **options: Any,
) -> nn.Module:
    """Build the network that a callable returns for the options.

    If it has an argument called `classes`, `num_classes` or `outputs`, it is given the number of
    outputs that the data asks for, and one called `input_shape` is given the shape of one input,
    unless the study gives them as options.

    What no initializer draws (embeddings, recurrent layers) stays as the callable makes it: the
    same in each network, because it draws from one stream.

    Args:
        factory: `module:name` of a plug-in, see `sculpt.registry.imported`.
        options: Its keyword arguments.

    Raises:
        ConfigError: there is no such callable.
        InputError: it raises an error, or returns something else than a module.
    """
    facts = dict.fromkeys(FACTS, classes) | {"input_shape": input_shape}
    asked = {name: facts[name] for name in keywords_of(imported(factory))[0] if name in facts}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = call_imported(factory, asked | options)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"the factory of a network must return a torch.nn.Module, but {factory} returns "
            f"{type(network).__name__}; return the module alone"
        )
    return network
