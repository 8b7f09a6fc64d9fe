"""Tensors of a checkpoint file, by parameter name: one written by sculpt, or a state_dict."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from sculpt.bundle import is_bundle, read_bundle
from sculpt.errors import InputError


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, on the CPU.

    Args:
        path: With the suffix `.safetensors`, a network that sculpt has written (pruned weights are
            read as 0), or plain tensors by name; with any other, a `state_dict` that `torch.save`
            has written.

    Raises:
        InputError: the file is missing, unreadable, or holds something else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return read_bundle(path).state if is_bundle(path) else load_file(path, device="cpu")
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
