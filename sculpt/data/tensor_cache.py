"""A cache of decoded pixels, one file per data set, in the user's cache folder.

No fault of the cache is an error: a lost file costs only the time to decode again.
"""

import contextlib
import zlib

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sculpt.files import cache_folder, replacing

_NAME = "pixels"


def load_tensor(key: str) -> Tensor | None:
    """Load the uint8 tensor of `key`; None without an intact one.

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
    """Save a contiguous uint8 tensor under `key`, if the cache folder can be written."""
    path = cache_folder() / f"{key}.safetensors"
    with contextlib.suppress(OSError, SafetensorError), replacing(path) as part:
        save_file({_NAME: tensor}, part, metadata={"crc32": _checksum(tensor)})


def _checksum(tensor: Tensor) -> str:
    return f"{zlib.crc32(tensor.contiguous().numpy().data):08x}"
