"""Networks of a callable of the user's own."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.nn.parameter import is_lazy

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
        network = _call_anywhere(factory, asked | options)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"the factory of a network must return a torch.nn.Module, but {factory} returns "
            f"{type(network).__name__}; return the module alone"
        )
    if lazy := [name for name, parameter in network.named_parameters() if is_lazy(parameter)]:
        raise InputError(
            f"the layers of a network must have their sizes, but {lazy[0]} of {factory} gets its "
            "own from the first batch; take an argument `input_shape`, and run "
            "network(torch.zeros(2, *input_shape)) in the factory"
        )
    return network


def _call_anywhere(factory: str, arguments: dict[str, Any]) -> Any:
    """Call a factory on the default device; where it reads numbers that the meta device has not,
    on the CPU."""
    try:
        return call_imported(factory, arguments)
    except InputError as error:
        if torch.get_default_device().type != "meta" or "meta" not in str(error.__cause__):
            raise
    with torch.device("cpu"):
        network = call_imported(factory, arguments)
    return network.to("meta") if isinstance(network, nn.Module) else network
