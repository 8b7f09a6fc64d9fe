"""Tensors of a checkpoint file, by parameter name: one written by sculpt, or a state_dict."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from sculpt.errors import InputError

SCULPT_FORMAT = "sculpt-weights-1"
"""As in sculpt/export/weights.py, which stands above this room."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, on the CPU.

    Args:
        path:
            With the suffix `.safetensors`, a network that sculpt has written (pruned weights
            are read as 0), or plain tensors by name; with any other, a `state_dict` that
            `torch.save` has written.

    Raises:
        InputError: the file is missing, unreadable, or holds something else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Not only OSError: bytes that are no checkpoint fail anywhere inside the readers.
        raise InputError(
            f"a checkpoint must be a readable safetensors file or a saved state_dict, but {path} "
            f"is not ({type(error).__name__}: {error}); check the path, or write it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(
            f"a checkpoint must map parameter names to tensors, but {path} does not; save "
            "model.state_dict(), not the model or a dictionary around it"
        )
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if header.get("format") != SCULPT_FORMAT:
        return tensors
    state = {
        key.removeprefix("tensor/"): tensor
        for key, tensor in tensors.items()
        if key.startswith("tensor/")
    }
    for name, shape in json.loads(header["shapes"]).items():
        values, packed = tensors[f"values/{name}"], tensors[f"mask/{name}"]
        dense = torch.zeros(shape, dtype=values.dtype, device="cpu")
        bits = np.unpackbits(packed.numpy(), count=dense.numel()).astype(bool)
        if int(bits.sum()) != values.numel():
            raise ValueError(f"{name} must have one value for each kept weight")
        dense.view(-1)[torch.from_numpy(bits)] = values
        state[name] = dense
    return state
