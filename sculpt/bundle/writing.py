"""Writing a masked network as a bundle; see `sculpt.bundle` for the format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.bundle.container import DTYPES, strict_json, write_container
from sculpt.bundle.positions import check_shape, encode_positions
from sculpt.bundle.reading import FORMAT, MOST_IN_ALL, check_name
from sculpt.errors import InputError


def write_bundle(
    path: str | Path, model: nn.Module, masks: dict[str, Tensor], metadata: Mapping[str, object]
) -> None:
    """Write a model's state and masks atomically.

    Args:
        path: The file to write, which should end in `.safetensors`; an older one is replaced.
        model: On any device; pruned weights are zero (or NaN, if it diverged).
        masks: Bool, True = kept, keyed by parameter name.
        metadata: JSON-serialisable, without NaN; `read_bundle` returns it unchanged.

    Raises:
        InputError: a mask does not fit the model, a pruned weight is not zero, or the format
            cannot hold a tensor or the metadata.
        OSError: nothing can be written there.
    """
    state = model.state_dict()
    strange = sorted(masks.keys() - state.keys())
    if strange:
        raise InputError(
            f"masks must be of the model's parameters, but it has none called {strange[0]!r}"
        )
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, value in state.items():
        _check_tensor(name, value)
        tensor = value.detach().cpu().contiguous()
        if name not in masks:
            tensors[f"tensor/{name}"] = tensor
            continue
        mask = masks[name].detach().cpu().contiguous()
        _check_masked(name, tensor, mask)
        shapes[name] = list(tensor.shape)
        tensors[f"values/{name}"] = tensor[mask]
        code, stored = encode_positions(mask.numpy())
        if code != "all":
            tensors[f"{code}/{name}"] = torch.from_numpy(stored)
    if sum(map(check_shape, shapes.values())) > MOST_IN_ALL:
        raise InputError(f"a bundle must have at most {MOST_IN_ALL} weights under masks")
    texts = {"format": FORMAT, "shapes": json.dumps(shapes), "metadata": _as_json(metadata)}
    write_container(Path(path), tensors, texts)


def _as_json(metadata: Mapping[str, object]) -> str:
    try:
        text = json.dumps(metadata, allow_nan=False)
        if not isinstance(strict_json(text), dict):
            raise TypeError("not a mapping")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the metadata of a bundle must be a mapping as JSON has them, but are not ({error}); "
            "keep only texts, finite numbers, lists and mappings"
        ) from error
    return text


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.dtype not in DTYPES.values():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"a bundle holds tensors of {', '.join(DTYPES)}, but {name} of the model's state is "
            f"{kind}; keep it out of the state, or convert it"
        )
    try:
        check_name(name)
    except ValueError as error:
        raise InputError(f"{error}; rename the layer") from error


def _check_masked(name: str, tensor: Tensor, mask: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != tensor.shape:
        raise InputError(
            f"the mask of {name} must be bool of shape {tuple(tensor.shape)}, but got "
            f"{mask.dtype} of shape {tuple(mask.shape)}"
        )
    try:
        check_shape(list(mask.shape))
    except ValueError as error:
        raise InputError(f"{error}, but {name} has {tuple(mask.shape)}") from error
    pruned = tensor[~mask]
    # Infinity times a mask's 0 is NaN.
    if ((pruned != 0) & ~pruned.isnan()).any():
        raise InputError(
            f"pruned weights must be 0, but {name} has others; call sculpt.apply_masks(model, "
            "masks) first"
        )
