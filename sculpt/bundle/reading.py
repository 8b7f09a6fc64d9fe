"""Reading a bundle, which may come from anybody; see `sculpt.bundle` for the format."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from sculpt.bundle.container import Header, read_header, strict_json, unpack_tensors
from sculpt.bundle.positions import Bytes, Code, check_shape, decode_positions
from sculpt.errors import InputError

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


def read_bundle(path: str | Path) -> Bundle:
    """Read a masked network that `write_bundle` wrote.

    The file may come from anybody: nothing of it is executed, and allocation is bounded by its
    size, at 256 weights a byte, and by 2^30 weights. Values may be infinite or NaN, see
    `Bundle.not_finite`.

    Raises:
        InputError: the file is missing, of another format, or damaged.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            header = read_header(file, size)
            found = header.texts.get("format")
            file.seek(0)
            content = file.read(size) if found == FORMAT else b""
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: must be a readable safetensors file, but is not ({error}); check the path, "
            "or copy it again"
        ) from error
    if found != FORMAT:
        raise InputError(
            f"{path}: must be a network written by sculpt (format {FORMAT}), but its format is "
            f"{found!a:.40}; give the file of a trial, or of an export"
        )
    try:
        return _unpack(header, content)
    except (KeyError, ValueError) as error:
        reason = f"{error!s:.80} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path}: must be whole, but is damaged ({reason}); copy it again"
        ) from error


def is_bundle(path: str | Path) -> bool:
    """Return whether the header of a file declares the format of a bundle."""
    try:
        with _opened(Path(path)) as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError):
        return False
    return header.texts.get("format") == FORMAT


def check_name(name: str) -> None:
    """Check that a tensor's name is like `stages.0.conv.weight`, and not like a path.

    Raises:
        ValueError: it is not.
    """
    sound = name.isprintable() and not set(name) & set("/\\")
    if not sound or not all(name.split(".")):
        raise ValueError(f"a tensor must be called like layer.weight, not {name!a:.80}")


def _opened(path: Path) -> BinaryIO:
    # Opening a pipe would wait for its writer, and a device has no end.
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    return path.open("rb")


def _unpack(header: Header, content: bytes) -> Bundle:
    """Parse a whole file, or raise KeyError or ValueError."""
    texts = header.texts
    if texts["checksum"] != header.checksum(memoryview(content)[header.length :]):
        raise ValueError("its checksum is that of something else")
    shapes, metadata = strict_json(texts["shapes"]), strict_json(texts["metadata"])
    if not isinstance(shapes, dict) or not isinstance(metadata, dict):
        raise ValueError("shapes and metadata must be mappings")
    if sum(map(check_shape, shapes.values())) > MOST_IN_ALL:
        raise ValueError(f"a network must have at most {MOST_IN_ALL} weights under masks")
    tensors = unpack_tensors(header, content)
    state: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        values = tensors.pop(f"values/{name}")
        code, stored = _take_positions(name, tensors)
        masks[name], state[name] = _scatter(name, shape, code, stored, values)
    for key, tensor in tensors.items():
        name = key.removeprefix("tensor/")
        if name == key or name in state:
            raise ValueError(f"{key!a:.80} belongs to no parameter")
        state[name] = tensor
    for name in state:
        check_name(name)
    return Bundle(state, masks, metadata)


def _take_positions(name: str, tensors: dict[str, Tensor]) -> tuple[Code, Bytes]:
    """Pop the positions of a parameter's kept weights, or raise ValueError."""
    code: Code
    for code in ("bitmask", "gaps"):
        if (stored := tensors.pop(f"{code}/{name}", None)) is not None:
            if stored.dtype != torch.uint8:
                raise ValueError(f"{code}/{name!a:.80} must be of the type U8")
            return code, stored.numpy()
    return "all", np.empty(0, np.uint8)


def _scatter(
    name: str, shape: list[int], code: Code, stored: Bytes, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a parameter's mask and its state, or raise ValueError."""
    size = check_shape(shape)
    if code == "all" and values.shape != (size,):
        raise ValueError(f"the positions of {name!a:.80} are missing")
    mask = torch.from_numpy(decode_positions(code, stored, size))
    if values.shape != (int(mask.sum()),):
        raise ValueError(f"{name!a:.80} must have one value for each kept weight")
    tensor = torch.zeros(size, dtype=values.dtype, device="cpu")
    tensor[mask] = values
    return mask.view(shape), tensor.view(shape)
