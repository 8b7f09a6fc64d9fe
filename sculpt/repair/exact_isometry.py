"""Exact isometries under a given mask, constructed row by row instead of by descent."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import qr
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor

Matrix = NDArray[np.float64]
Support = NDArray[np.bool_]

NO_ROOM = 1e-8
"""Remainder of a unit row below which the rows before it span all of its support."""

DEPENDENT = 1e-12
"""Relative size below which a row adds no direction to those before it."""


@torch.no_grad()
def construct_isometry(weight: Tensor, mask: Tensor) -> Tensor:
    """Construct weights under a mask that are exactly as near to an isometry as the mask allows.

    Rows that a maximum matching pairs with columns of their own become orthonormal, the others
    zero: W Wᵀ is diagonal, with as many ones as the mask's structural rank, so that
    ‖W Wᵀ − I‖_F is `isometry_bound` up to rounding. (With more live rows than live columns the
    columns take the rows' part, and W Wᵀ is a projection of that rank.)

    Exact Orthogonal Initialization (Esguerra, Nowak et al. 2023) chooses mask and weights
    together, as a product of Givens rotations. Here the mask is given and no such product need
    fit it, so each row, shortest support first, is its old weights projected onto what its
    support leaves orthogonal to the rows before it (Gram-Schmidt under the mask), which uses
    all kept weights where there is room. A row that finds none is given its matched column for
    itself alone, and the others start again without that column: in the end every row would
    stand alone on its matched column, which is exact, so this always succeeds. Such rows have
    a single weight that is not zero; the other kept ones are zero, and free in training.

    The cost is one QR decomposition per row and start, O(rows² · kept) at most, on the CPU in
    float64.

    Args:
        weight: (rows, columns).
        mask: Bool, (rows, columns).

    Returns:
        (rows, columns), of the weight's dtype and device; exactly zero outside the mask.
    """
    if not mask.any():
        return torch.zeros_like(weight)
    support = mask.cpu().numpy()
    start = weight.detach().double().cpu().numpy() * support
    if support.any(1).sum() > support.any(0).sum():
        built = _orthonormal_rows(start.T, support.T).T
    else:
        built = _orthonormal_rows(start, support)
    return torch.from_numpy(np.ascontiguousarray(built)).to(weight)


def _orthonormal_rows(start: Matrix, support: Support) -> Matrix:
    """Construct rows that are orthonormal where matched, zero elsewhere."""
    columns = maximum_bipartite_matching(csr_array(support), perm_type="column")
    matched = np.flatnonzero(columns >= 0)
    order = matched[np.argsort(support[matched].sum(1), kind="stable")]
    alone = np.zeros(len(support), dtype=bool)
    while True:
        shared = support.copy()
        shared[:, columns[alone]] = False
        built = np.zeros_like(start)
        built[alone, columns[alone]] = np.where(start[alone, columns[alone]] < 0, -1.0, 1.0)
        cramped = []
        for row in order[~alone[order]]:
            own = np.flatnonzero(shared[row])
            others = built[:, own]
            direction = _orthogonal_to(others[others.any(1)], start[row, own])
            if direction is None:
                cramped.append(row)
            else:
                built[row, own] = direction
        if not cramped:
            return built
        alone[cramped] = True


def _orthogonal_to(others: Matrix, start: Matrix) -> Matrix | None:
    """Find the unit vector nearest to `start` that is orthogonal to others; None without one."""
    basis, triangle, _ = qr(others.T, mode="economic", pivoting=True)
    sizes = np.abs(np.diagonal(triangle))
    basis = basis[:, sizes > DEPENDENT * max(1.0, sizes.max(initial=0.0))]
    if basis.shape[1] == len(start):
        return None
    # Old weights may be zero, or a copy of another row's: then any free direction will do.
    for candidate in (start, np.random.default_rng(0).normal(size=len(start))):
        size = np.linalg.norm(candidate)
        if size == 0:
            continue
        direction = candidate / size
        direction -= basis @ (basis.T @ direction)
        left = np.linalg.norm(direction)
        if left > NO_ROOM:
            direction /= left
            direction -= basis @ (basis.T @ direction)  # again, to remove rounding
            return direction / np.linalg.norm(direction)
    return None
