"""Masks in other people's training loops: after every optimiser step, and as PyTorch's own."""

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import Masks, check_masks, dense_masks, embeddings
from sculpt.errors import InputError
from sculpt.pruning.masks import apply_masks


def attach_masks(optimizer: Optimizer, model: nn.Module, masks: Masks) -> RemovableHandle:
    """Set every pruned weight to zero, now and after each step of an optimiser.

    Whatever calls the optimiser's step: a loop, a gradient scaler, Lightning, a `Trainer` of
    Hugging Face. The network may be moved to another device afterwards, compiled, or wrapped for
    several processes, and the masks may be changed in place (`move_masks`).

    Args:
        optimizer: Of this network's parameters.
        model: The pruned network.
        masks: Bool, True = kept, keyed by parameter name, as `sculpt.prune` returns them.

    Returns:
        A handle; `handle.remove()` detaches the masks.

    Raises:
        InputError: the masks do not fit the model, or the optimiser steps none of its weights.
    """
    apply_masks(model, masks)
    parameters = material_weights(model, masks)
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    checked = check_masks(model, masks)
    sparse = {name: mask for name, mask in checked.items() if not mask.all()}
    if missing := [name for name in sparse if id(parameters[name]) not in stepped]:
        raise InputError(
            f"an optimiser must step the pruned weights for masks to be attached to it, but "
            f"{missing[0]} is none of its parameters; make it from model.parameters()"
        )
    weights: list[Tensor] = []
    keep: list[Tensor] = []

    def versions() -> list[int]:
        """Count the changes in place of each mask."""
        return [mask._version for mask in masks.values()]

    def read() -> list[int]:
        weights.clear()
        keep.clear()
        for name in checked:
            if not masks[name].all():
                weights.append(parameters[name])
                # With the strides of the weights, or they are not multiplied all at once.
                keep.append(torch.empty_like(parameters[name]).copy_(masks[name]))
        return versions()

    seen = read()

    @torch.no_grad()
    def after_step(*_: object) -> None:
        nonlocal seen
        if versions() != seen:
            seen = read()
        for place, weight in enumerate(weights):
            if keep[place].device != weight.device or keep[place].dtype != weight.dtype:
                keep[place] = keep[place].to(weight)
        if weights:
            torch._foreach_mul_(weights, keep)

    return optimizer.register_step_post_hook(after_step)


def to_torch_pruning(model: nn.Module, masks: Masks) -> None:
    """Hand masks over to `torch.nn.utils.prune`, which computes each weight from them, in place.

    Raises:
        InputError: the masks do not fit the model.
    """
    here = check_masks(model, masks)
    for name, mask in here.items():
        if not mask.all():
            path, _, attribute = name.rpartition(".")
            torch_prune.custom_from_mask(model.get_submodule(path), attribute, mask)


def from_torch_pruning(model: nn.Module) -> Masks:
    """Take over the masks of a network that `torch.nn.utils.prune` pruned, in place.

    Its weights are parameters again afterwards, the pruned ones 0.

    Returns:
        Bool masks of all conv and linear layers, and of embeddings that were pruned, keyed by
        parameter name.
    """
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        names = [key.removesuffix("_mask") for key in module._buffers if key.endswith("_mask")]
        for attribute in names:
            if f"{attribute}_orig" in module._parameters:
                mask = getattr(module, f"{attribute}_mask").bool()
                torch_prune.remove(module, attribute)
                found[f"{path}.{attribute}".removeprefix(".")] = mask
    masks = dense_masks(model)
    if others := sorted(found.keys() - masks.keys() - embeddings(model).keys()):
        raise InputError(
            f"masks must be of conv and linear layers or embeddings, but {others[0]} is pruned, "
            "too; make that permanent with torch.nn.utils.prune.remove"
        )
    return masks | found
