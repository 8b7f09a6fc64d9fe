"""The conv and linear layers of a network, their parameters and their masks."""

import torch
from torch import Tensor, nn

from sculpt.errors import InputError

Masks = dict[str, Tensor]
"""Bool tensors, True = kept, keyed by parameter name; one for every prunable parameter."""


def weighted_layers(model: nn.Module) -> dict[str, nn.modules.conv._ConvNd | nn.Linear]:
    """List the conv and linear layers, keyed by their weights' parameter names."""
    return {
        f"{name}.weight" if name else "weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)
    }


def weight_of(parameter: str) -> str:
    """Name the weight of the layer of a weight or bias."""
    return parameter.rpartition(".")[0] + ".weight" if "." in parameter else "weight"


def prunable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """List the weights and biases of every conv and linear layer, keyed by name.

    Raises:
        InputError: the model has no such layer.
    """
    parameters = {
        weight.removesuffix("weight") + name: parameter
        for weight, layer in weighted_layers(model).items()
        for name, parameter in layer.named_parameters(recurse=False)
    }
    if not parameters:
        raise InputError(
            "a network must have convolution or linear layers to be pruned, but "
            f"{type(model).__name__} has none"
        )
    return parameters


def kept_weights(masks: Masks) -> int:
    """Count the weights and biases that masks keep."""
    return sum(int(mask.sum()) for mask in masks.values())


def check_masks(model: nn.Module, masks: Masks) -> None:
    """Refuse masks that do not fit a model.

    Raises:
        InputError: a mask does not fit; the message names the parameter.
    """
    parameters = prunable_parameters(model)
    if parameters.keys() != masks.keys():
        different = sorted(parameters.keys() ^ masks.keys())
        raise InputError(
            "there must be one mask for each weight and bias of a conv or linear layer, but "
            f"these have only one of the two: {', '.join(different[:5])}"
        )
    for name, parameter in parameters.items():
        mask = masks[name]
        if mask.dtype != torch.bool or mask.shape != parameter.shape:
            raise InputError(
                f"the mask of {name} must be bool of shape {tuple(parameter.shape)}, but got "
                f"{mask.dtype} of shape {tuple(mask.shape)}"
            )
