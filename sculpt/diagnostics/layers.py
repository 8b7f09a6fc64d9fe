"""The conv and linear layers of a network, their parameters and their masks."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.graph.calls import Layer as Layer

Embedding = nn.Embedding | nn.EmbeddingBag


class Projections(nn.Linear):
    """Input projections of an attention layer, seen as a linear layer: it has their parameters.

    Those of queries, keys and values are three matrices (features, features) on top of each other,
    or three layers.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, groups: int):
        super().__init__(weight.shape[1], len(weight), bias=False, device="meta")
        self.weight, self.bias, self.groups = weight, bias, groups  # type: ignore[assignment]


Masks = dict[str, Tensor]
"""Bool tensors, True = kept, keyed by parameter name; one for every parameter of a conv or linear
layer, and of each embedding that is pruned. A frozen parameter is kept whole."""
REQUESTED = "pruned_on_request"
"""Attribute of an embedding whose weight may be pruned: scoring a network sees it alone."""


def named_layers(model: nn.Module) -> list[tuple[str, str | None, Layer]]:
    """List every conv and linear layer after the names of its weight and of its bias.

    A parameter that several modules share has one name: its first, as in `named_parameters()`.

    Raises:
        InputError: a weight or bias is computed from other parameters.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a network must be a torch.nn.Module, but got {type(model).__name__}")
    names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    found: list[tuple[str, str | None, Layer]] = []
    for path, layer in model.named_modules():
        if isinstance(layer, nn.MultiheadAttention):
            found += [(names[p.weight], names.get(p.bias), p) for p in projections(layer)]
        elif isinstance(layer, Layer):
            if computed := [name for name in ("weight", "bias") if name not in layer._parameters]:
                raise InputError(
                    "the weight and bias of a layer must be parameters of its own to be pruned, "
                    f"but {f'{path}.{computed[0]}'.removeprefix('.')} is computed from others "
                    "(weight_norm, spectral_norm, torch.nn.utils.prune, ...); remove that first, "
                    "for example with torch.nn.utils.parametrize.remove_parametrizations"
                )
            found.append((names[layer.weight], names.get(layer.bias), layer))
    return found


def projections(attention: nn.MultiheadAttention) -> list[Projections]:
    """List the input projections of an attention layer; its output's is a module of its own.

    The biases of three separate projections are one parameter, which belongs to none of them.
    """
    if attention.in_proj_weight is not None:
        return [Projections(attention.in_proj_weight, attention.in_proj_bias, 3)]
    separate = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    return [Projections(weight, None, 1) for weight in separate if weight is not None]


def weighted_layers(model: nn.Module) -> dict[str, Layer]:
    """List the conv and linear layers by their weights' names; of several with one, the first."""
    layers: dict[str, Layer] = {}
    for weight, _, layer in named_layers(model):
        layers.setdefault(weight, layer)
    return layers


def weights_of(model: nn.Module, also: Collection[str] = ()) -> dict[str, str]:
    """Map the name of each weight and bias of conv and linear layers to its layer's weight.

    The weights of embeddings on request are their own, and those of embeddings that `also` names.
    """
    owners: dict[str, str] = {}
    for weight, bias, _ in named_layers(model):
        for name in (weight, bias):
            if name is not None:
                owners.setdefault(name, weight)
    for name, embedding in _embeddings(model).items():
        if name not in owners and (name in also or hasattr(embedding, REQUESTED)):
            owners[name] = name
    return owners


def _embeddings(model: nn.Module) -> dict[str, Embedding]:
    """List the embeddings by their weights' names; of several with one weight, the first."""
    names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[str, Embedding] = {}
    for module in model.modules():
        if isinstance(module, Embedding) and "weight" in module._parameters:
            found.setdefault(names[module.weight], module)
    return found


def embeddings(model: nn.Module) -> dict[str, Embedding]:
    """List the embeddings by their weights' names, but for those that a layer shares."""
    layers = {name for weight, bias, _ in named_layers(model) for name in (weight, bias)}
    return {name: found for name, found in _embeddings(model).items() if name not in layers}


@contextmanager
def embeddings_on_request(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Count the weights of some embeddings to the prunable ones, in a context."""
    chosen = [module for name, module in embeddings(model).items() if name in names]
    # A gradient that is sparse, or divided by how often a row is read, is none to score by.
    before = [(module.sparse, module.scale_grad_by_freq) for module in chosen]
    try:
        for module in chosen:
            setattr(module, REQUESTED, True)
            module.sparse = module.scale_grad_by_freq = False
        yield
    finally:
        for module, (sparse, by_frequency) in zip(chosen, before, strict=True):
            delattr(module, REQUESTED)
            module.sparse, module.scale_grad_by_freq = sparse, by_frequency


def check_no_embeddings(model: nn.Module, user: str) -> None:
    """Refuse embeddings on request where paths are followed, which begin behind them.

    Raises:
        InputError: there is one; the message names its weight and the user.
    """
    for name, module in _embeddings(model).items():
        if hasattr(module, REQUESTED):
            raise InputError(
                f"{user} must follow paths through all weights that it prunes, but they begin at "
                f"what an embedding returns, behind {name}; leave it out of include, or prune by "
                "single weights with connection_sensitivity, grasp, magnitude or random"
            )


def weight_of(parameter: str) -> str:
    """Name the weight of the layer of a weight or bias in a state."""
    return parameter.rpartition(".")[0] + ".weight" if "." in parameter else "weight"


def weighted_parameters(model: nn.Module, also: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """List the weights and biases of every conv and linear layer, frozen ones too, by name.

    And the weights of some embeddings, see `weights_of`.

    Raises:
        InputError: the model has no such layer, or the weight of one is computed from others.
    """
    parameters = {name: model.get_parameter(name) for name in weights_of(model, also)}
    if not parameters:
        raise InputError(
            "a network must have convolution or linear layers to be pruned, but "
            f"{type(model).__name__} has none"
        )
    return parameters


def prunable_parameters(model: nn.Module, also: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """List the weights and biases that may be pruned: those of `weighted_parameters` that train.

    Raises:
        InputError: there is none; or see `weighted_parameters`.
    """
    parameters = weighted_parameters(model, also)
    prunable = {name: p for name, p in parameters.items() if p.requires_grad}
    if not prunable:
        raise InputError(
            "some convolution or linear layer must be trainable to be pruned, but all are frozen; "
            "call requires_grad_(True) on those that may lose weights"
        )
    return prunable


def dense_masks(model: nn.Module) -> Masks:
    """Make masks that keep everything."""
    return {
        name: torch.ones_like(parameter, dtype=torch.bool)
        for name, parameter in weighted_parameters(model).items()
    }


def layer_groups(layer: Layer) -> int:
    """Return into how many layers of their own the output channels of a layer are divided."""
    return int(getattr(layer, "groups", 1))


def by_output(layer: Layer, weight: Tensor) -> Tensor:
    """View a weight, or a tensor of its shape, by output channel: (outputs, inputs, kernel).

    The outputs of one group follow each other, and the inputs are those of that group alone. The
    weight of a transposed convolution is (inputs, outputs of a group, kernel); others are ordered
    like this. `from_outputs` is the way back.
    """
    if isinstance(layer, nn.Linear):
        return weight[..., None]
    if layer.transposed:
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(2)


def from_outputs(layer: Layer, view: Tensor) -> Tensor:
    """Turn (outputs, ...), as from `by_output`, back into the shape of the layer's weight."""
    shape = layer.weight.shape
    if not isinstance(layer, nn.Linear) and layer.transposed:
        parts = view.reshape(layer.groups, shape[1], shape[0] // layer.groups, -1)
        view = parts.transpose(1, 2)
    return view.reshape(shape)


def matrices_of(layer: Layer, weight: Tensor) -> list[Tensor]:
    """View a weight, or a tensor of its shape, as one matrix per group: (outputs, fan-in)."""
    return list(by_output(layer, weight).flatten(1).chunk(layer_groups(layer)))


def kept_weights(masks: Mapping[str, Tensor]) -> int:
    """Count the weights and biases that masks keep."""
    return sum(int(mask.sum()) for mask in masks.values())


def check_masks(model: nn.Module, masks: object, *, of_biases: bool = True) -> Masks:
    """Refuse masks that do not fit a model; return them where its parameters are.

    Args:
        model: On any device.
        masks: One bool tensor for each weight and bias of a conv or linear layer, by name; there
            may be one for the weight of an embedding.
        of_biases: Whether those of biases must be there, too.

    Raises:
        InputError: a mask does not fit; the message names the parameter.
    """
    if not isinstance(masks, Mapping):
        raise InputError(
            "masks must be a dictionary of bool tensors by parameter name, as sculpt.prune returns "
            f"it, but got {type(masks).__name__}"
        )
    parameters, owners = weighted_parameters(model, masks), weights_of(model, masks)
    different = sorted(map(str, parameters.keys() ^ masks.keys()))
    if not of_biases:
        different = [name for name in different if owners.get(name, name) == name]
    if different:
        raise InputError(
            "there must be one mask for each weight and bias of a conv or linear layer, but "
            f"these have only one of the two: {', '.join(different[:5])}"
        )
    here = {}
    for name, mask in masks.items():
        shape = parameters[name].shape
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
            raise InputError(
                f"the mask of {name} must be bool of shape {tuple(shape)}, but got {describe(mask)}"
            )
        here[name] = mask.to(parameters[name].device)
    return here


def check_applied(model: nn.Module, masks: Masks) -> Masks:
    """Refuse masks that do not fit a model, or were not applied to it: its function is another.

    Pruned weights of a network that diverged may be NaN: infinity times a mask's 0.

    Returns:
        The masks, on the model's device.

    Raises:
        InputError: a mask does not fit, or a pruned weight is not zero.
    """
    here = check_masks(model, masks)
    for name, parameter in weighted_parameters(model, masks).items():
        pruned = parameter.detach()[~here[name]]
        if ((pruned != 0) & ~pruned.isnan()).any():
            raise InputError(
                f"pruned weights must be zero, but some of {name} are not; first call "
                "sculpt.apply_masks(model, masks), or give the masks of this network"
            )
    return here


def describe(value: Any) -> str:
    """Say what a value is: the type and shape of a tensor, the class and keys of others."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return f"{kind} with {', '.join(map(str, value)) or 'nothing'}"
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list) else kind
