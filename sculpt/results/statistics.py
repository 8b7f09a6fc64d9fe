"""Comparing two networks trained with the same seeds."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


def paired_interval(
    candidate: Sequence[float], base: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return Student's interval of the mean difference candidate − base.

    Args:
        candidate:
            One value per seed.
        base:
            The values of the same seeds, in the same order.
        confidence:
            Coverage of the interval if differences are normal.

    Raises:
        ValueError: the two are not equally long, or shorter than 2.
    """
    if len(candidate) != len(base) or len(base) < 2:
        raise ValueError(
            f"both must have a value for each of at least 2 seeds, got {len(candidate)} and "
            f"{len(base)}"
        )
    differences = np.asarray(candidate) - np.asarray(base)
    half = stdtrit(len(differences) - 1, (1 + confidence) / 2) * (
        differences.std(ddof=1) / np.sqrt(len(differences))
    )
    return float(differences.mean() - half), float(differences.mean() + half)


def verdict(candidate: Sequence[float], base: Sequence[float]) -> str:
    """Say whether a candidate's error is lower than the base's, seed by seed.

    `better` and `worse` mean that the 95 % interval of the paired difference leaves out zero,
    for this one comparison: among many candidates some will by chance. One seed says nothing,
    and is called `single seed`.
    """
    if len(candidate) != len(base) or len(base) < 2:
        return "single seed"
    low, high = paired_interval(candidate, base)
    if high < 0:
        return "better"
    return "worse" if low > 0 else "not distinguishable"
