"""Where the kept weights of a sparse array are, as the distances between them.

A step says how far the next entry lies from the last one, so that a running sum gives the
positions back. Where a step is longer than its type allows, entries between fill the way: they
stand on weights that are zero.
"""

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.uint8 | np.uint16]


def encode_gaps(
    kept: NDArray[np.bool_], dtype: type[np.uint8] | type[np.uint16] = np.uint8
) -> tuple[Steps, NDArray[np.bool_]]:
    """Return the steps to the kept entries of a flat mask, and which of them only fill the way.

    `numpy.cumsum(steps)` are the positions of all entries, no two of them the same, and
    `numpy.cumsum(steps)[~fillers]` those of the kept ones.

    Args:
        kept:
            (N,).
        dtype:
            Of the steps: small ones for dense masks, large ones where fillers would be many.
    """
    largest = np.iinfo(dtype).max
    # The first is counted from 0 and may be 0; all others are at least 1.
    distances = np.diff(np.flatnonzero(kept), prepend=0)
    fillers_before = np.maximum(distances - 1, 0) // largest
    ends = np.cumsum(fillers_before + 1) - 1
    entries = int(ends[-1]) + 1 if ends.size else 0
    steps = np.full(entries, largest, dtype)
    steps[ends] = distances - fillers_before * largest
    fillers = np.ones(entries, bool)
    fillers[ends] = False
    return steps, fillers
