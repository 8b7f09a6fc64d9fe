"""Checks of what users give: networks, inputs, and what networks return."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map_only

from sculpt.diagnostics.layers import describe, weighted_parameters
from sculpt.errors import InputError, NumericsError

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]
"""Inputs of a network, with N rows in each tensor: one, positional ones, or named ones."""


@dataclass(frozen=True, eq=False)
class Example:
    """One row of a network's inputs, where their shape alone does not tell what they are."""

    inputs: Inputs


InputShape = tuple[int, ...] | Example
"""Shape of one float input without its batch dimension, for example (3, 32, 32); or an example of
several inputs, or of whole numbers."""


def ones_like_inputs(
    shape: InputShape, device: torch.device, dtype: torch.dtype, make: Callable[[Tensor], Any]
) -> Any:
    """Make one row of inputs of a shape: ones where they are floats, and an example's numbers."""

    def ones(tensor: Tensor) -> Any:
        if not tensor.is_floating_point():
            return tensor.to(device)
        return make(torch.ones(tensor.shape, device=device, dtype=dtype))

    if isinstance(shape, Example):
        return tree_map_only(Tensor, ones, shape.inputs)
    return make(torch.ones(1, *shape, device=device, dtype=dtype))


def shape_of(inputs: Inputs) -> InputShape:
    """Return the shape of one of the inputs, or the first as an example."""
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        return tuple(inputs.shape[1:])
    return Example(take_rows(inputs, slice(1)))


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Call a network with its inputs, however many there are."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def count_rows(inputs: Inputs) -> int:
    """Count the inputs of a batch: the rows of its first tensor."""
    return next((len(x) for x in tree_leaves(inputs) if isinstance(x, Tensor)), 0)


def take_rows(inputs: Inputs, rows: slice) -> Any:
    """Take some inputs of a batch."""
    return tree_map_only(Tensor, lambda tensor: tensor[rows], inputs)


def logits_of(output: Any) -> Tensor:
    """Return the logits among what a network returned, with classes in dimension 1.

    They are a tensor (N, classes, ...); the first of a tuple; or what is called `logits` or `out`.
    Those that are called `logits` and have three dimensions are a language model's, (N, tokens,
    classes).

    Raises:
        InputError: there are none; the message says what there is.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found.movedim(2, 1) if name == "logits" and found.dim() == 3 else found
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise InputError(
        "a network must return logits: a tensor, a tuple that begins with them, or an object with "
        f"`logits` or `out`, but returned {describe(output)}; wrap it in a module that returns its "
        "logits alone, or give loss="
    )


def material_weights(model: nn.Module, also: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """List the weights and biases of conv and linear layers, after a look whether they are there.

    And the weights of embeddings that `also` names.

    Raises:
        InputError: there are none, or one has no values yet, or was made in inference mode.
    """
    parameters = weighted_parameters(model, also)
    for name, parameter in parameters.items():
        if is_lazy(parameter):
            mend = "run one batch through the network"
        elif parameter.is_meta:
            mend = "bring the network from the meta device with to_empty(device=...)"
        elif parameter.is_inference():
            mend = "make the network outside of torch.inference_mode"
        else:
            continue
        raise InputError(
            f"weights must have values that can be changed, but {name} has none; {mend}"
        )
    return parameters


def check_inputs(inputs: Any, model: nn.Module, *, derivable: bool = False) -> Any:
    """Refuse inputs that are no batch of numbers where the model is.

    Args:
        inputs: One float tensor (N, ...), of the type of the model's weights; or whole numbers
            (N, ...) if it has embeddings. Or several: a tuple of positional arguments, or a
            dictionary of named ones, among which there may be masks and settings.
        derivable: Whether the output must be differentiable by them: then floats, of any type.

    Returns:
        The inputs, as tensors that autograd accepts.

    Raises:
        InputError: they are something else; the message says what.
        NumericsError: one of them is not finite.
    """
    parameters = list(weighted_parameters(model).values())
    embeds = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules())
    types = {p.dtype for p in parameters} | ({torch.int64, torch.int32} if embeds else set())
    several = isinstance(inputs, tuple | Mapping)
    leaves = (
        [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)] if several else [inputs]
    )
    if several:
        types.add(torch.bool)
    if derivable:
        types |= {x.dtype for x in leaves if isinstance(x, Tensor) and x.is_floating_point()}
    for leaf in leaves or [inputs]:
        if (
            not isinstance(leaf, Tensor)
            or leaf.dtype not in types
            or leaf.dim() < (1 if several else 2)
        ):
            wanted = " or ".join(sorted(map(str, types)))
            raise InputError(
                f"inputs must be one tensor (N, ...) of {wanted}, normalised, or a tuple or a "
                f"dict of such tensors, but got {describe(leaf)}; stack them, and convert them "
                f"with .to({wanted.split()[0]})"
            )
        if leaf.device != parameters[0].device:
            raise InputError(
                f"inputs must be where the network is, but that is on {parameters[0].device} and "
                f"they are on {leaf.device}; move one of them with .to(device)"
            )
        if not leaf.isfinite().all():
            raise NumericsError(
                f"inputs must be finite numbers, but {int((~leaf.isfinite()).sum())} are not; "
                "check the images and their normalisation"
            )
    return tree_map_only(Tensor, lambda x: x.clone() if x.is_inference() else x, inputs)
