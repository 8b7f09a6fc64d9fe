"""Masks in other people's training loops: after every optimiser step, and as PyTorch's own."""

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import (
    Embedding,
    Layer,
    Masks,
    check_masks,
    dense_masks,
    describe,
)
from sculpt.errors import InputError
from sculpt.pruning.masks import apply_masks


def attach_masks(optimizer: Optimizer, model: nn.Module, masks: Masks) -> RemovableHandle:
    """Set every pruned weight to zero, now and after each step of an optimiser.

    Whatever calls the optimiser's step: a loop, a gradient scaler, Lightning, a `Trainer` of
    Hugging Face. The network may be moved to another device afterwards, compiled, or wrapped for
    several processes, and the masks may be changed in place (`move_masks`).

    Args:
        optimizer: Of this network's parameters, or of some of them: then those alone are kept, and
            the optimiser of the others is to be given the masks, too.
        model: The pruned network.
        masks: Bool, True = kept, keyed by parameter name, as `sculpt.prune` returns them.

    Returns:
        A handle; `handle.remove()` detaches the masks.

    Raises:
        InputError: the masks do not fit the model, or the optimiser steps none of its weights.
    """
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            "masks must be attached to an optimiser of torch.optim, but got "
            f"{describe(optimizer)}; call sculpt.apply_masks after each step of another one"
        )
    parameters = material_weights(model, masks)
    checked = check_masks(model, masks)
    if made_for_inference := [name for name, mask in masks.items() if mask.is_inference()]:
        raise InputError(
            "masks must be tensors whose changes can be seen, but that of "
            f"{made_for_inference[0]} was made in torch.inference_mode; clone them outside of it"
        )
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = [name for name in checked if id(parameters[name]) in stepped]
    sparse = [
        name for name, mask in checked.items() if parameters[name].requires_grad and not mask.all()
    ]
    if sparse and not set(sparse) & set(own):
        raise InputError(
            f"an optimiser must step the pruned weights for masks to be attached to it, but "
            f"{sparse[0]} is none of its parameters; make it from model.parameters()"
        )
    apply_masks(model, masks)
    weights: list[Tensor] = []
    keep: list[Tensor] = []
    seen: list[tuple[Tensor, int]] = []

    def changed() -> bool:
        """Tell whether a mask is another one, or was changed in place."""
        now = [masks[name] for name in own]
        return any(
            mask is not before or mask._version != version
            for mask, (before, version) in zip(now, seen, strict=True)
        )

    def read() -> None:
        weights.clear()
        keep.clear()
        seen[:] = [(masks[name], masks[name]._version) for name in own]
        for name in own:
            if not masks[name].all():
                weights.append(parameters[name])
                # With the strides of the weights, or they are not multiplied all at once.
                keep.append(torch.empty_like(parameters[name]).copy_(masks[name]))

    read()

    @torch.no_grad()
    def after_step(*_: object) -> None:
        if changed():
            read()
        for place, weight in enumerate(weights):
            if keep[place].device != weight.device or keep[place].dtype != weight.dtype:
                keep[place] = keep[place].to(weight)
        if weights:
            torch._foreach_mul_(weights, keep)

    return optimizer.register_step_post_hook(after_step)


def to_torch_pruning(model: nn.Module, masks: Masks) -> None:
    """Hand masks over to `torch.nn.utils.prune`, which computes each weight from them, in place.

    Raises:
        InputError: the masks do not fit the model, or leave out a weight that several layers share,
            or one of an attention layer: PyTorch computes neither anew where it is used.
    """
    here = {name: mask for name, mask in check_masks(model, masks).items() if not mask.all()}
    named = list(model.named_parameters(remove_duplicate=False))
    uses = Counter(id(parameter) for _, parameter in named)
    attention = [
        f"{path}.".removeprefix(".")
        for path, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    for name in here:
        if uses[id(model.get_parameter(name))] > 1 or name.startswith(tuple(attention)):
            raise InputError(
                "masks must be of weights that one layer computes with for torch.nn.utils.prune to "
                f"hold them, but {name} is shared or an attention layer's; use sculpt.attach_masks"
            )
    for name, mask in here.items():
        path, _, attribute = name.rpartition(".")
        torch_prune.custom_from_mask(model.get_submodule(path), attribute, mask)


def from_torch_pruning(model: nn.Module) -> Masks:
    """Take over the masks of a network that `torch.nn.utils.prune` pruned, in place.

    Its weights are parameters again afterwards, the pruned ones 0.

    Returns:
        Bool masks of all conv and linear layers, and of embeddings that were pruned, keyed by
        parameter name.

    Raises:
        InputError: something else is pruned, too.
    """
    pruned = [
        (path, module, key.removesuffix("_mask"))
        for path, module in model.named_modules()
        for key in module._buffers
        if key.endswith("_mask") and f"{key.removesuffix('_mask')}_orig" in module._parameters
    ]
    for path, module, attribute in pruned:
        if not isinstance(module, Layer | Embedding):
            raise InputError(
                "masks must be of conv and linear layers or embeddings, but "
                f"{path}.{attribute} is pruned, too; make that permanent with "
                "torch.nn.utils.prune.remove"
            )
    found: dict[str, Tensor] = {}
    for path, module, attribute in pruned:
        found[f"{path}.{attribute}".removeprefix(".")] = getattr(module, f"{attribute}_mask").bool()
        torch_prune.remove(module, attribute)
    return dense_masks(model) | found
