"""Decoded pixels kept between runs, one file per data set, in the user's cache folder.

Losing a file, or the whole folder, costs only the time to decode again, so no fault of the
cache is ever an error.
"""

import contextlib
import os
import zlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sculpt.files import replacing

_NAME = "pixels"


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/sculpt`, or `~/.cache/sculpt` where that is not set."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sculpt"


def load_tensor(key: str) -> Tensor | None:
    """Return the uint8 tensor kept under `key`; None if there is none that is intact.

    A damaged file is removed, so that `save_tensor` can write a good one.
    """
    path = cache_folder() / f"{key}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(_NAME)
            intact = (file.metadata() or {}).get("crc32") == _checksum(tensor)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError):
        intact = False
    if intact:
        return tensor
    with contextlib.suppress(OSError):
        path.unlink()
    return None


def save_tensor(key: str, tensor: Tensor) -> None:
    """Keep a contiguous uint8 tensor under `key`, if the cache folder can be written at all."""
    path = cache_folder() / f"{key}.safetensors"
    with contextlib.suppress(OSError, SafetensorError), replacing(path) as part:
        save_file({_NAME: tensor}, part, metadata={"crc32": _checksum(tensor)})


def _checksum(tensor: Tensor) -> str:
    return f"{zlib.crc32(tensor.contiguous().numpy().data):08x}"
