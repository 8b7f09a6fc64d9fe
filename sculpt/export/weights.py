"""A masked network as one safetensors file: kept values and bit-packed masks, no pickle.

For every masked parameter `NAME`: `values/NAME` (kept values in row-major order) and
`mask/NAME` (uint8, eight weights a byte, `numpy.packbits`). Every other tensor of the state
is stored whole as `tensor/NAME`. The shapes stand in the metadata.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.masks import Masks

FORMAT = "sculpt-weights-1"


def save_network(path: Path, model: nn.Module, masks: Masks, metadata: dict[str, Any]) -> None:
    """Write a model's state and masks.

    Args:
        path:
            The file to write.
        model:
            Its pruned weights are zero.
        masks:
            Keyed by parameter name.
        metadata:
            JSON-serialisable; returned as it was by `load_network`.
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if name in masks:
            mask = masks[name].cpu()
            shapes[name] = list(tensor.shape)
            tensors[f"values/{name}"] = tensor[mask]
            tensors[f"mask/{name}"] = torch.from_numpy(np.packbits(mask.flatten().numpy()))
        else:
            tensors[f"tensor/{name}"] = tensor
    header = {"format": FORMAT, "shapes": json.dumps(shapes), "metadata": json.dumps(metadata)}
    save_file(tensors, path, metadata=header)


def load_network(path: Path) -> tuple[dict[str, Tensor], Masks, dict[str, Any]]:
    """Read (state for `model.load_state_dict`, masks, metadata) as `save_network` wrote them.

    Raises:
        InputError: the file is not one of ours, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: must be a readable safetensors file ({error})") from error
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path}: must be a network written by sculpt (format {FORMAT}), but its format is "
            f"{header.get('format')!r}"
        )
    try:
        return _unpack(header, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: must be a whole file, but is damaged ({reason})") from error


def _unpack(
    header: dict[str, str], tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Masks, dict[str, Any]]:
    """Return (state, masks, metadata), or raise KeyError, TypeError, ValueError or RuntimeError."""
    shapes, metadata = json.loads(header["shapes"]), json.loads(header["metadata"])
    if not isinstance(shapes, dict) or not isinstance(metadata, dict):
        raise TypeError("shapes and metadata must be mappings")
    state: dict[str, Tensor] = {}
    masks: Masks = {}
    for name, shape in shapes.items():
        values, packed = tensors.pop(f"values/{name}"), tensors.pop(f"mask/{name}")
        size = math.prod(shape)
        if packed.dtype != torch.uint8 or packed.shape != (-(-size // 8),):
            raise ValueError(f"the mask of {name} does not fit its shape {shape}")
        bits = np.unpackbits(packed.numpy(), count=size)
        masks[name] = torch.from_numpy(bits.astype(bool)).view(shape)
        if values.shape != (int(bits.sum()),):
            raise ValueError(f"{name} must have one value for each kept weight")
        state[name] = torch.zeros(shape, dtype=values.dtype).masked_scatter(masks[name], values)
    for key, tensor in tensors.items():
        if not key.startswith("tensor/"):
            raise ValueError(f"{key} belongs to no parameter")
        state[key.removeprefix("tensor/")] = tensor
    return state, masks, metadata
