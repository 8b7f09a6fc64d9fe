"""From float64 to the float32 that files hold."""

import numpy as np
from numpy.typing import NDArray

from sculpt.errors import NumericsError


def as_float32(values: NDArray[np.float64], name: str) -> NDArray[np.float32]:
    """Round values to what a file holds. A zero has no sign: a pruned weight is +0.0.

    Raises:
        NumericsError: a value is not finite, or too large for float32.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32) + np.float32(0)
    if not np.isfinite(rounded).all():
        worst = values.flat[int(np.argmin(np.isfinite(rounded)))]
        raise NumericsError(
            f"{name}: values must be finite in float32 to be exported, but one is {worst}; "
            "train with a lower learning rate"
        )
    return np.ascontiguousarray(rounded)
