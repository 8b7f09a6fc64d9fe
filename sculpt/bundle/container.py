"""A safetensors file with a checksum, read within bounds: it may come from anybody.

The library of that name parses and packs the tensors. Here the header is bounded before it is
parsed, repeated keys are refused, and the file is read rather than mapped, so that another process
may truncate it meanwhile.
"""

import hashlib
import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save
from torch import Tensor

from sculpt.bundle.positions import MOST_DIMENSIONS
from sculpt.errors import InputError
from sculpt.files import replacing

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
class Header:
    """The parsed header of a file."""

    texts: dict[str, str]
    tensors: dict[str, Any]
    """By name: dtype, shape and data_offsets, not yet checked."""
    length: int = 0
    """Bytes before the tensors."""

    def checksum(self, data: bytes | memoryview) -> str:
        """SHA-256 of the header, as JSON without the checksum, and of the tensors' bytes.

        Keys of the JSON are sorted, and there are no spaces.
        """
        texts = {key: text for key, text in self.texts.items() if key != "checksum"}
        document = {"__metadata__": texts, **self.tensors}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode())
        digest.update(data)
        return digest.hexdigest()


def write_container(path: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    """Write tensors and texts with a checksum over all of them, atomically.

    The tensors are on the CPU, of the types of `DTYPES`. An older file is replaced.

    Raises:
        InputError: the texts are longer than a header may be.
        OSError: nothing can be written there.
    """
    # Clones, because the library refuses tensors that share memory.
    packed = save({name: tensor.clone() for name, tensor in tensors.items()})
    begin = 8 + int.from_bytes(packed[:8], "little")
    places, data = json.loads(packed[8:begin]), packed[begin:]
    texts = texts | {"checksum": Header(texts, places).checksum(data)}
    # Not by the library, which writes texts in a random order.
    header = json.dumps({"__metadata__": texts} | places, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > LONGEST_HEADER:
        raise InputError(
            f"the header of a bundle must have at most {LONGEST_HEADER} bytes, but has "
            f"{len(header)}; shorten the metadata"
        )
    with replacing(path) as part:
        part.write_bytes(len(header).to_bytes(8, "little") + header + data)


def read_header(file: BinaryIO, size: int) -> Header:
    """Read the header of an open file of `size` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such header.
    """
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes does not fit a file of {size}")
    document = strict_json(file.read(length).decode())
    texts = document.pop("__metadata__", {}) if isinstance(document, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its header is not a mapping of texts and tensors")
    return Header(texts, document, 8 + length)


def unpack_tensors(header: Header, content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a whole file, on the CPU, each with memory of its own.

    Raises:
        ValueError: the header is malformed, or does not fit the data.
    """
    try:
        found = dict(deserialize(content))
    except SafetensorError as error:
        raise ValueError(f"{str(error)!a:.200}") from error
    tensors = {}
    for name in header.tensors:  # in the order of the file: the library has none
        entry = found[name]
        dtype, shape, data = DTYPES.get(entry["dtype"]), entry["shape"], entry["data"]
        if (
            dtype is None
            or header.tensors[name].keys() != {"dtype", "shape", "data_offsets"}
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
        tensors[name] = flat.reshape(shape)
    return tensors


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


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is given twice in its JSON")
    return mapping


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
