"""A safetensors file with a checksum, read within bounds: it may come from anybody.

The library of that name parses and packs the tensors. Here the header is bounded before it is
parsed, repeated keys are refused, and the file is read rather than mapped, so that another process
may truncate it meanwhile.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save
from torch import Tensor

from sculpt.bundle.positions import MOST_DIMENSIONS
from sculpt.errors import InputError
from sculpt.files import check_file

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types that are read and written."""

LONGEST_HEADER = 2**24
DEEPEST_JSON = 64
"""Nested lists and mappings. Python gives up at about 1,000, or crashes."""
MOST_ELEMENTS = 2**48
"""Product of the sides of a stored tensor, empty ones left out: PyTorch cannot multiply more."""


@dataclass(frozen=True)
class Container:
    """A file whose header is parsed, and nothing else checked."""

    texts: dict[str, str]
    entries: dict[str, Any]
    """By name of a tensor: dtype, shape and data_offsets."""
    content: bytes
    """The whole file; empty if only the header was read."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors on the CPU, in the order of the file, each with memory of its own.

        Raises:
            KeyError: there is no checksum.
            ValueError: the checksum, or the header, does not fit the data.
        """
        start = 8 + int.from_bytes(self.content[:8], "little")
        data = memoryview(self.content)[start:]
        if self.texts["checksum"] != _checksum(self.texts, self.entries, data):
            raise ValueError("its checksum is that of something else")
        try:
            found = dict(deserialize(self.content))
        except SafetensorError as error:
            raise ValueError(f"{str(error)!a:.200}") from error
        return {name: _tensor(name, entry, found[name]) for name, entry in self.entries.items()}


def container_bytes(tensors: dict[str, Tensor], texts: dict[str, str]) -> bytes:
    """Pack tensors, on the CPU and of the types of `DTYPES`, and texts, with a checksum.

    Raises:
        InputError: the texts are longer than a header may be.
    """
    # Clones, because the library refuses tensors that share memory.
    packed = save({name: tensor.clone() for name, tensor in tensors.items()})
    begin = 8 + int.from_bytes(packed[:8], "little")
    entries, data = json.loads(packed[8:begin]), packed[begin:]
    texts = texts | {"checksum": _checksum(texts, entries, data)}
    # Not by the library, which writes texts in a random order.
    header = json.dumps({"__metadata__": texts} | entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > LONGEST_HEADER:
        raise InputError(
            f"the header of a bundle must have at most {LONGEST_HEADER} bytes, but has "
            f"{len(header)}; shorten the metadata"
        )
    return len(header).to_bytes(8, "little") + header + data


def read_container(path: Path, format: str) -> Container:
    """Read a file; only its header if that declares another format than this.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: its header is none of such a file.
    """
    check_file(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise ValueError(f"a header of {length} bytes does not fit a file of {size}")
        document = strict_json(file.read(length).decode())
        texts = document.pop("__metadata__", {}) if isinstance(document, dict) else None
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("its header is not a mapping of texts and tensors")
        file.seek(0)
        content = file.read(size) if texts.get("format") == format else b""
    return Container(texts, document, content)


def strict_json(text: str) -> Any:
    """Parse JSON as its standard has it: without NaN, repeated keys, or deep nesting.

    Raises:
        ValueError: it is something else.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    if level:
        raise ValueError("its JSON is nested too deeply")
    return value


def _checksum(texts: dict[str, str], entries: dict[str, Any], data: bytes | memoryview) -> str:
    """SHA-256 of the header, as JSON without the checksum, and of the tensors' bytes.

    Keys of the JSON are sorted, and there are no spaces.
    """
    unsigned = {key: text for key, text in texts.items() if key != "checksum"}
    header = json.dumps({"__metadata__": unsigned} | entries, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(header.encode())
    digest.update(data)
    return digest.hexdigest()


def _tensor(name: str, entry: Any, parsed: Any) -> Tensor:
    dtype, shape, data = DTYPES.get(parsed["dtype"]), parsed["shape"], parsed["data"]
    if (
        dtype is None
        or entry.keys() != {"dtype", "shape", "data_offsets"}
        or len(shape) > MOST_DIMENSIONS
        or prod(filter(None, shape)) >= MOST_ELEMENTS
    ):
        raise ValueError(
            f"the header entry of {name!a:.80} is malformed; its type must be one of "
            f"{', '.join(DTYPES)}"
        )
    if dtype == torch.bool and data.strip(b"\0\1"):
        raise ValueError(f"a tensor of truth values has others than 0 and 1: {name!a:.80}")
    with torch.device("cpu"):  # whatever the default device
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(shape)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is given twice in its JSON")
    return mapping


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
