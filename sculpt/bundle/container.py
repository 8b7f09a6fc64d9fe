"""The safetensors layout, read strictly: 8 bytes of length, a JSON header, the tensors' bytes.

Files come from anybody, so nothing is believed before it was checked, and nothing is allocated
that the file does not have the bytes for. The library of that name reads these files, too; here
one parser decides what the header says, repeated keys are refused, and the file is read rather
than mapped, so that it may be cut short by others meanwhile.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

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
"""Lists and mappings within each other. Python gives up at about 1,000, or crashes."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: `texts` by key, and where its tensors are."""

    texts: dict[str, str]
    tensors: Mapping[str, object]
    """By name: dtype, shape and data_offsets, not yet checked."""

    def checksum(self, data: bytes) -> str:
        """Return the SHA-256 of everything that a file holds, but for the checksum itself.

        It is that of the header as JSON without the checksum, keys sorted and without spaces,
        followed by the bytes of the tensors.
        """
        texts = {key: text for key, text in self.texts.items() if key != "checksum"}
        document = {"__metadata__": texts, **self.tensors}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode())
        digest.update(data)
        return digest.hexdigest()


def write_container(path: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    """Write tensors and texts, with a checksum over all of them, whole or not at all.

    The tensors are on the CPU, of the types of `DTYPES`. An older file is replaced.

    Raises:
        InputError: the texts are longer than a header may be.
        OSError: nothing can be written there.
    """
    codes = {dtype: code for code, dtype in DTYPES.items()}
    parts, places, end = [], {}, 0
    # Wide types first: each tensor then begins at a multiple of its own width.
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        tensor = tensors[name].contiguous()
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        begin, end = end, end + len(parts[-1])
        places[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    data = b"".join(parts)
    texts = texts | {"checksum": Header(texts, places).checksum(data)}
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
    return Header(texts, document)


def unpack_tensors(header: Header, data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file, on the CPU, each with memory of its own.

    `data` is everything that follows the header.

    Raises:
        ValueError: the header is not sound, or not of this data.
    """
    places = [(*_place(name, entry), name) for name, entry in header.tensors.items()]
    tensors, end = {}, 0
    # An empty tensor begins where the next one does.
    for begin, stop, dtype, shape, name in sorted(places, key=lambda place: place[:2]):
        if begin != end or stop > len(data):
            raise ValueError("its tensors do not follow one another")
        end = stop
        if stop == begin:
            tensors[name] = torch.empty(shape, dtype=dtype, device="cpu")
            continue
        if dtype == torch.bool and data[begin:stop].strip(b"\0\1"):
            raise ValueError(f"a tensor of truth values has others than 0 and 1: {name!a}")
        own = bytearray(data[begin:stop])
        tensors[name] = torch.frombuffer(own, dtype=dtype).reshape(shape)
    if end != len(data):
        raise ValueError(f"its tensors have {end} bytes, but {len(data)} follow the header")
    return tensors


def strict_json(text: str) -> Any:
    """Parse JSON as its standard has it: without NaN, repeated keys, or a thousand brackets.

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


def _place(name: str, entry: object) -> tuple[int, int, torch.dtype, list[int]]:
    """Return (begin, end, type, shape) of a tensor, or raise ValueError."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the header says not what, or where, {name!a:.80} is")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    whole = [
        isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**48 for n in numbers)
        for numbers in (shape, offsets)
    ]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!a:.80} is of the type {dtype!a:.20}, not {', '.join(DTYPES)}")
    if not all(whole) or len(shape) > 8 or len(offsets) != 2:
        raise ValueError(f"the shape or the place of {name!a:.80} is none")
    begin, end = offsets
    if end - begin != prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{name!a:.80} has not the bytes of its shape")
    return begin, end, DTYPES[dtype], shape


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is given twice in its JSON")
    return mapping


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
