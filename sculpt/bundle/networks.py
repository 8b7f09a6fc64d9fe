"""Writing and reading a masked network as a bundle; see `sculpt.bundle` for the format."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.bundle.container import (
    DTYPES,
    Container,
    container_bytes,
    read_container,
    strict_json,
)
from sculpt.bundle.positions import CODES, check_shape, decode_positions, encode_positions
from sculpt.errors import InputError
from sculpt.files import replacing

FORMAT = "sculpt-bundle-1"

NETWORK_FILE = "network.safetensors"
"""Name of the bundle in an exported folder."""

MOST_IN_ALL = 2**30
"""Masked weights of one network: a bound on what a small file can make its reader allocate."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """The content of a bundle."""

    state: dict[str, Tensor]
    """For `model.load_state_dict`, on the CPU; pruned weights are 0."""
    masks: dict[str, Tensor]
    """Bool, True = kept, keyed by parameter name."""
    metadata: dict[str, Any]
    """JSON values as written, not checked."""

    @property
    def not_finite(self) -> list[str]:
        """Names of tensors with infinities or NaN, as in a network that diverged."""
        return [
            name
            for name, tensor in self.state.items()
            if tensor.is_floating_point() and not tensor.isfinite().all()
        ]


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
    content = bundle_bytes(model, masks, metadata)
    with replacing(Path(path)) as part:
        part.write_bytes(content)


def bundle_bytes(
    model: nn.Module, masks: dict[str, Tensor], metadata: Mapping[str, object]
) -> bytes:
    """Return the bytes of a bundle; see `write_bundle`."""
    state = model.state_dict()
    strange = sorted(masks.keys() - state.keys())
    if strange:
        raise InputError(
            f"masks must be of the model's parameters, but it has none called {strange[0]!r}"
        )
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.dtype not in DTYPES.values():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"a bundle holds tensors of {', '.join(DTYPES)}, but {name} of the model's state "
                f"is {kind}; keep it out of the state, or convert it"
            )
        tensor = value.detach().cpu().contiguous()
        try:
            _check_name(name)
        except ValueError as error:
            raise InputError(f"{error}; rename the layer") from error
        if name not in masks:
            tensors[f"tensor/{name}"] = tensor
            continue
        mask = masks[name].detach().cpu().contiguous()
        _check_masked(name, tensor, mask)
        shapes[name] = list(tensor.shape)
        tensors[f"values/{name}"] = tensor[mask]
        if not mask.all():
            code, stored = encode_positions(mask.numpy())
            tensors[f"{code}/{name}"] = torch.from_numpy(stored)
    if sum(map(check_shape, shapes.values())) > MOST_IN_ALL:
        raise InputError(f"a bundle must have at most {MOST_IN_ALL} weights under masks")
    try:
        text = json.dumps(metadata, allow_nan=False)
        if not isinstance(strict_json(text), dict):
            raise TypeError("not a mapping")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the metadata of a bundle must be a mapping as JSON has them, but are not ({error}); "
            "keep only texts, finite numbers, lists and mappings"
        ) from error
    return container_bytes(
        tensors, {"format": FORMAT, "shapes": json.dumps(shapes), "metadata": text}
    )


def read_bundle(path: str | Path) -> Bundle:
    """Read a masked network that `write_bundle` wrote.

    The file may come from anybody: nothing of it is executed, and allocation is bounded by its
    size, at 256 weights a byte, and by 2^30 weights. Values may be infinite or NaN, see
    `Bundle.not_finite`.

    Raises:
        InputError: the file is missing, of another format, or damaged.
    """
    try:
        found = read_container(Path(path), FORMAT)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: must be a readable safetensors file, but is not ({error}); check the path, "
            "or copy it again"
        ) from error
    if (format := found.texts.get("format")) != FORMAT:
        raise InputError(
            f"{path}: must be a network written by sculpt (format {FORMAT}), but its format is "
            f"{format!a:.40}; give the file of a trial, or of an export"
        )
    try:
        return _unpack(found)
    except (KeyError, ValueError) as error:
        reason = f"{error!s:.80} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path}: must be whole, but is damaged ({reason}); copy it again"
        ) from error


def is_bundle(path: str | Path) -> bool:
    """Return whether the header of a file declares the format of a bundle."""
    try:
        return read_container(Path(path), "").texts.get("format") == FORMAT
    except (OSError, ValueError):
        return False


def _unpack(found: Container) -> Bundle:
    """Parse a whole file, or raise KeyError or ValueError."""
    tensors, texts = found.tensors(), found.texts
    shapes, metadata = strict_json(texts["shapes"]), strict_json(texts["metadata"])
    if not isinstance(shapes, dict) or not isinstance(metadata, dict):
        raise ValueError("shapes and metadata must be mappings")
    if sum(map(check_shape, shapes.values())) > MOST_IN_ALL:
        raise ValueError(f"a network must have at most {MOST_IN_ALL} weights under masks")
    state: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        values = tensors.pop(f"values/{name}")
        mask = _take_mask(name, check_shape(shape), values, tensors)
        if values.shape != (int(mask.sum()),):
            raise ValueError(f"{name!a:.80} must have one value for each kept weight")
        tensor = torch.zeros(len(mask), dtype=values.dtype, device="cpu")
        tensor[mask] = values
        masks[name], state[name] = mask.view(shape), tensor.view(shape)
    for key, tensor in tensors.items():
        name = key.removeprefix("tensor/")
        if name == key or name in state:
            raise ValueError(f"{key!a:.80} belongs to no parameter")
        state[name] = tensor
    for name in state:
        _check_name(name)
    return Bundle(state, masks, metadata)


def _take_mask(name: str, size: int, values: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Pop the positions of a parameter's kept weights, and return its flat mask."""
    for code in CODES:
        if (stored := tensors.pop(f"{code}/{name}", None)) is not None:
            if stored.dtype != torch.uint8:
                raise ValueError(f"{code}/{name!a:.80} must be of the type U8")
            return torch.from_numpy(decode_positions(code, stored.numpy(), size))
    if values.shape != (size,):
        raise ValueError(f"the positions of {name!a:.80} are missing")
    return torch.ones(size, dtype=torch.bool, device="cpu")


def _check_name(name: str) -> None:
    """Check that a tensor's name is like `stages.0.conv.weight`, and not like a path."""
    sound = name.isprintable() and not set(name) & set("/\\")
    if not sound or not all(name.split(".")):
        raise ValueError(f"a tensor must be called like layer.weight, not {name!a:.80}")


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
