"""Non-dominated points, their hypervolume, and the knee of a front.

Everywhere lower is better: values that are to be maximised come with their sign turned.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROUNDING = 1e-9
"""Tolerance for scaled values: nearer than this to a hyperplane is on it."""


def dominates(rows: Array, row: Array) -> NDArray[np.bool_]:
    """Return the rows of an (n, objectives) array that dominate one row, as a mask (n,)."""
    return np.logical_and((rows <= row).all(axis=-1), (rows < row).any(axis=-1))


def non_dominated(values: Array) -> NDArray[np.bool_]:
    """Return the non-dominated rows of an (n, objectives) array, as a mask (n,).

    A row dominates another if it is nowhere higher and somewhere lower, so equal rows stand
    together. Values may be infinite. A row with NaN is never on the front and dominates nothing.
    """
    front = np.zeros(len(values), dtype=np.bool_)
    sound = np.flatnonzero(~np.isnan(values).any(axis=1))
    if not len(sound):
        return front
    # Ranks in place of values: order is all that counts, and they are finite.
    columns = values[sound].T
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in columns], axis=1)
    rows, copies = np.unique(ranks, axis=0, return_inverse=True)
    front[sound] = _first_front(rows)[copies.reshape(-1)]
    return front


def _first_front(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the non-dominated of rows that differ and are sorted, the first column first."""
    count, objectives = rows.shape
    front = np.zeros(count, dtype=np.bool_)
    if objectives == 1:
        front[0] = True
    elif objectives == 2:
        lowest = np.minimum.accumulate(rows[:, 1])
        front[0] = True
        front[1:] = rows[1:, 1] < lowest[:-1]
    elif objectives == 3:
        # No row is dominated by a later one, so the other two objectives decide.
        stairs = _Staircase(count, count)
        front[:] = [stairs.add(second, third) > 0 for _, second, third in rows.tolist()]
    else:
        # What dominates a row has the smaller sum: the first that is left is always on the front.
        left = np.argsort(rows.sum(axis=1), kind="stable")
        while len(left):
            front[left[0]] = True
            left = left[(rows[left] < rows[left[0]]).any(axis=1)]
    return front


def hypervolume(values: Array, reference: Array) -> float:
    """Return the volume that rows dominate up to a reference point, exactly.

    It is found by sweeping along the first objective, one objective less at a time; for three
    objectives that takes n log n steps, each further one multiplies them by n at most.

    Args:
        values: (n, objectives); a row counts only if it is lower than the reference in every
            objective, so one with NaN never does.
        reference: (objectives,).

    Returns:
        The volume, in the product of the objectives' units; 0 if no row counts.
    """
    inside = values[(values < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if not (np.isfinite(inside).all() and np.isfinite(reference).all()):
        return float("inf")
    return _volume(inside, reference)


def _volume(rows: Array, reference: Array) -> float:
    """Return the volume of rows that are finite and lower than the reference everywhere."""
    # Between one row and the next, all rows up to the first have the same cross-section.
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    widths = np.append(rows[1:, 0], reference[0]) - rows[:, 0]
    if rows.shape[1] == 1:
        return float(reference[0] - rows[0, 0])
    if rows.shape[1] == 2:
        return float(widths @ (reference[1] - np.minimum.accumulate(rows[:, 1])))
    others = reference[1:]
    if rows.shape[1] == 3:
        stairs = _Staircase(*others.tolist())
        gained = [stairs.add(second, third) for _, second, third in rows.tolist()]
        return float(widths @ np.cumsum(gained))
    volume, section, seen = 0.0, 0.0, rows[:0, 1:]
    for point, width in zip(rows[:, 1:], widths.tolist(), strict=True):
        if not (seen <= point).all(axis=1).any():
            # Of the box that the point dominates, what those before it have not dominated already
            # (While, Bradstreet & Barone 2012: the limit set).
            covered = _volume(np.maximum(seen, point), others) if len(seen) else 0.0
            section += float(np.prod(others - point)) - covered
            seen = np.vstack([seen[~(point <= seen).all(axis=1)], point])
        volume += section * width
    return volume


class _Staircase:
    """The non-dominated of points in a plane, and the area that they dominate up to a corner.

    Args:
        right: Above the first value of every point.
        top: Above the second value of every point.
    """

    def __init__(self, right: float, top: float):
        # Steps from left to right, each lower than the one before, between two that never go.
        self._firsts = [-float("inf"), right]
        self._seconds = [top, -float("inf")]

    def add(self, first: float, second: float) -> float:
        """Add a point; return by how much the area grows: 0 if another one dominates it."""
        begin = bisect_right(self._firsts, first)
        left, height = first, self._seconds[begin - 1]
        if height <= second:
            return 0.0
        gained, end = 0.0, begin
        while True:
            gained += (self._firsts[end] - left) * (height - second)
            if self._seconds[end] < second:
                break
            left, height = self._firsts[end], self._seconds[end]
            end += 1
        self._firsts[begin:end], self._seconds[begin:end] = [first], [second]
        return gained


def knee(values: Array) -> int | None:
    """Return the row of a front at its knee: where a gain in one objective begins to cost most.

    Every objective is scaled to reach from 0 at its lowest to 1 at its highest value on the
    front. The knee is the row with the smallest sum, that is, the one farthest below the
    hyperplane of equal sums through the extremes of the front (Das 1999, the bulge; Branke et al.
    2004). The extreme of an objective is its lowest row, of several the one with the smallest
    sum; where the sums of the extremes differ, which takes three objectives, the hyperplane goes
    through their mean.

    Args:
        values: (n, objectives), non-dominated rows.

    Returns:
        The number of the row, the first of several. None if there are fewer than three different
        rows, if an objective is constant or not finite, or if no row lies below the hyperplane: a
        straight front, or one that bulges to the other side, has no knee.
    """
    if len(np.unique(values, axis=0)) < 3 or not np.isfinite(values).all():
        return None
    lowest, span = values.min(axis=0), np.ptp(values, axis=0)
    if not span.all():
        return None
    scaled = (values - lowest) / span
    sums = scaled.sum(axis=1)
    extremes = np.where(scaled == 0, sums[:, None], np.inf).min(axis=0)
    smallest = sums.min()
    if smallest >= extremes.mean() - _ROUNDING:
        return None
    return int(np.flatnonzero(sums <= smallest + _ROUNDING)[0])
