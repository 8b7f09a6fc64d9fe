"""Positions of a tensor's kept weights in few bytes: a bit for each weight, or gaps between them.

Nothing is stored where all weights are kept. Else the writer takes the smaller of two codes:

- `bitmask`: eight weights a byte, the first in the highest bit (`numpy.packbits`); the bits that
  fill the last byte are 0.
- `gaps`: a byte b below 255 leaves out b weights and keeps the next one; a byte of 255 leaves out
  255 and keeps none. After the last byte fewer than 255 weights are left, all of them left out.

Each mask has exactly one form in each code. Because the bytes reach the end of the tensor, a file
cannot make its reader allocate more than 256 weights for each of its bytes.
"""

from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Code = Literal["bitmask", "gaps"]
CODES: tuple[Code, ...] = ("bitmask", "gaps")
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

FILLER = 255
"""The byte that keeps nothing; one more than the longest gap of a byte that keeps a weight."""

MOST_DIMENSIONS = 8
MOST_WEIGHTS = 2**31
"""Masked weights of one tensor."""


def encode_positions(mask: Mask) -> tuple[Code, Bytes]:
    """Return the smaller code of a mask of any shape (read row by row), and its bytes."""
    flat = mask.reshape(-1)
    bitmask, gaps = np.packbits(flat), _encode_gaps(flat)
    return ("gaps", gaps) if len(gaps) < len(bitmask) else ("bitmask", bitmask)


def decode_positions(code: Code, stored: Bytes, size: int) -> Mask:
    """Return the flat mask, (size,), that `encode_positions` was given.

    The bytes, (n,), may come from anybody: the mask is allocated only after they proved to reach
    its size.

    Raises:
        ValueError: the bytes are not the code of a mask of this size.
    """
    if stored.dtype != np.uint8 or stored.ndim != 1:
        raise ValueError(f"positions must be one row of uint8, not {stored.dtype} {stored.shape}")
    if code == "bitmask":
        if len(stored) != -(-size // 8):
            raise ValueError(f"a bitmask of {size} weights cannot have {len(stored)} bytes")
        bits = np.unpackbits(stored)
        if bits[size:].any():
            raise ValueError("the bits that fill the last byte of a bitmask must be 0")
        return bits[:size].astype(np.bool_)
    keeps = stored < FILLER
    reached = np.cumsum(stored.astype(np.int64) + keeps)  # weights passed after each byte
    end = int(reached[-1]) if len(reached) else 0
    if not 0 <= size - end < FILLER:
        raise ValueError(f"gaps must end at most {FILLER - 1} before {size}, but end at {end}")
    mask = np.zeros(size, np.bool_)
    mask[reached[keeps] - 1] = True
    return mask


def check_shape(shape: Any) -> int:
    """Return the number of weights in a tensor of a declared shape, which may be anything.

    Raises:
        ValueError: it is not a list of at most 8 positive whole numbers with a product of at most
            2^31.
    """
    # By type: True is an int, too.
    if not isinstance(shape, list) or not all(type(length) is int for length in shape):
        raise ValueError("a shape must be a list of whole numbers")
    if len(shape) > MOST_DIMENSIONS or any(not 1 <= length <= MOST_WEIGHTS for length in shape):
        raise ValueError(
            f"a shape must have at most {MOST_DIMENSIONS} lengths from 1 to {MOST_WEIGHTS}"
        )
    if prod(shape) > MOST_WEIGHTS:
        raise ValueError(f"a tensor must have at most {MOST_WEIGHTS} weights")
    return prod(shape)


def insert_fillers(
    values: NDArray[np.int64], counts: NDArray[np.int64], filler: int
) -> tuple[NDArray[np.int64], Mask]:
    """Insert `counts` fillers before each value; return the row, and a mask of its fillers."""
    fillers = np.ones(len(values) + int(counts.sum()), np.bool_)
    fillers[np.cumsum(counts + 1) - 1] = False
    row = np.full(fillers.size, filler)
    row[~fillers] = values
    return row, fillers


def _encode_gaps(flat: Mask) -> Bytes:
    kept = np.flatnonzero(flat)
    gaps = np.diff(kept, prepend=-1) - 1
    rest = flat.size - (int(kept[-1]) + 1 if len(kept) else 0)
    stored, _ = insert_fillers(gaps % FILLER, gaps // FILLER, FILLER)
    return np.append(stored, np.full(rest // FILLER, FILLER)).astype(np.uint8)
