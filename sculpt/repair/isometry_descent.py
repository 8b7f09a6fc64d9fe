"""Simultaneous descent of a stack of masked layers to isometry (Lee et al. 2020, Eq. 8)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Norm = Literal["frobenius", "spectral"]

WIDE = 2**18
"""Weights of a matrix from which on the products of matrices are all that a step costs."""
PROBES = 32
"""Random vectors that estimate the norms along a line of a wide matrix, to a few percent."""

REFRESH = 20
"""Steps between fresh computations of the running W Wᵀ − I, so that rounding does not add up."""

WINDOW = 10
PROGRESS = 0.1
"""A layer whose excess shrinks by less than this fraction in WINDOW steps has stalled. On the way
to a bound it shrinks as much in a step or two; next to a stationary point it does not shrink."""


@dataclass(frozen=True)
class Descent:
    """Outcome of one layer's descent."""

    weight: Tensor
    """(live rows, live columns); exactly zero outside the mask."""
    steps: int
    converged: bool
    """Whether it came within tolerance of the bound."""
    stalled: bool
    """Whether it did not, and more steps would not help."""


def descend(
    weights: Tensor,
    masks: Tensor,
    *,
    rows: int,
    ranks: Sequence[int],
    norm: Norm,
    max_steps: int,
    tolerance: float,
) -> list[Descent]:
    """Bring each matrix of a stack within tolerance of the bound of its mask.

    Both norms share the path: conjugate gradients (Polak-Ribière) on ¼‖W Wᵀ − I‖²_F, which
    along a line is a polynomial of degree four, so each step ends at its exact first minimum;
    that of a wide matrix is estimated (Hutchinson's probes), which saves half of its products.
    The distance from the bound of a mask of structural rank r is the *excess* Σ_{i≤r} (σ_i² − 1)²
    over the r largest singular values; the others are zero whatever the weights. The norms differ
    in their stopping rule:

    - `frobenius`: ‖W Wᵀ − I‖_F is within tolerance · √rows of √(rows − r).
    - `spectral`: max_{i≤r} |σ_i² − 1| is within tolerance. With r = rows this is ‖W Wᵀ − I‖₂.
      With less, ‖W Wᵀ − I‖₂ is at least 1 however good the other rows are and would stop at once
      for nearly every pruned layer, so only the r singular values that can be 1 count.

    A layer leaves the stack as soon as it is done, so it takes the same steps as alone.

    Args:
        weights: (layers, m, n), zero outside the masks. Leaving out zero rows and columns, or
            adding some, changes nothing.
        masks: (layers, m, n), ones and zeros of the weights' dtype.
        rows: Rows of each whole layer, at least its rank.
        ranks: Structural rank of each mask.
        norm: Decides when a layer is done.
        max_steps: Limit for each layer.
        tolerance: Relative to the norm of the identity: √rows or 1.

    Returns:
        One descent per layer, in order.
    """
    results: dict[int, Descent] = {}
    layers = list(range(len(weights)))  # those still in the stack
    trails: list[list[float]] = [[] for _ in layers]  # of the excess, step by step
    stationary: set[int] = set()
    errors = _errors(weights)
    probes = None
    if weights[0].numel() > WIDE:
        generator = torch.Generator().manual_seed(0)
        probes = torch.randn(errors.shape[1], PROBES, generator=generator).to(weights)
    directions = gradients = torch.zeros_like(weights)
    squares = gradients.new_zeros(len(weights), 1, 1, dtype=torch.float64)
    for step in range(max_steps + 1):
        # ‖W Wᵀ − I‖² is ‖Wᵀ W − I‖² plus one for each additional row: side and padding are free.
        squared = errors.square().sum((1, 2), dtype=torch.float64).tolist()
        staying = []
        for position, (layer, square) in enumerate(zip(layers, squared, strict=True)):
            trail = trails[layer]
            trail.append(square - (errors.shape[1] - ranks[layer]))
            done = _is_done(trail[-1], errors[position], rows, ranks[layer], norm, tolerance)
            stalled = layer in stationary or (
                len(trail) > WINDOW and trail[-1] > (1 - PROGRESS) * trail[-1 - WINDOW]
            )
            if done or stalled or step == max_steps:
                results[layer] = Descent(weights[position], step, done, stalled and not done)
            else:
                staying.append(position)
        if not staying:
            break
        if len(staying) < len(layers):
            layers = [layers[position] for position in staying]
            weights, masks, errors = weights[staying], masks[staying], errors[staying]
            directions, gradients = directions[staying], gradients[staying]
            squares = squares[staying]
        if step == 0:
            weights = weights * _best_scale(errors)
            errors = _errors(weights)
        elif step % REFRESH == 0:
            errors = _errors(weights)

        previous, previous_squares = gradients, squares
        gradients = _sided(errors, weights).mul_(masks)
        squares = _dot(gradients, gradients)
        growth = (squares - _dot(gradients, previous)) / previous_squares
        growth = growth.nan_to_num(0.0, 0.0, 0.0).clamp_min(0)  # no direction came before the first
        directions = (growth.to(weights.dtype) * directions).sub_(gradients)
        downhill = _dot(directions, gradients) < 0
        if not downhill.all():
            directions = torch.where(downhill, directions, -gradients)
        if probes is None:
            linear, quadratic = _products(weights, directions)
            lengths = _line_minima(errors, linear, quadratic)
        else:
            lengths = _line_minima(errors @ probes, *_probed(weights, directions, probes))
        stationary = {layer for layer, length in zip(layers, lengths, strict=True) if length == 0}
        length = weights.new_tensor(lengths)[:, None, None]
        weights = (length * directions).add_(weights)
        if probes is None:
            errors = errors + length * linear + length.square() * quadratic
        else:
            errors = _errors(weights)
    return [results[layer] for layer in range(len(results))]


def isometry_residual(weight: Tensor, *, rows: int, rank: int, norm: Norm) -> float:
    """Compute ‖W Wᵀ − I‖ in a norm; zero rows and columns of W may be left out.

    Args:
        weight: (live rows, live columns).
        rows: Rows of the whole matrix.
        rank: Structural rank of the mask.
        norm: `frobenius` or `spectral`.
    """
    error = _errors(weight[None])[0]
    if norm == "frobenius":
        square = float(error.square().sum(dtype=torch.float64)) + (rows - len(error))
        return math.sqrt(max(0.0, square))
    return max(_largest_deviation(error, rank), float(rank < rows))


def _is_done(
    excess: float, error: Tensor, rows: int, rank: int, norm: Norm, tolerance: float
) -> bool:
    """Tell whether a layer is within tolerance of its bound."""
    if norm == "frobenius":
        bound, slack = math.sqrt(rows - rank), tolerance * math.sqrt(rows)
        return excess <= 2 * bound * slack + slack**2  # √(bound² + excess) ≤ bound + slack
    # The largest of r deviations is between √(excess / r) and √excess: look only if in doubt.
    if excess <= tolerance**2 or excess > rank * tolerance**2:
        return excess <= tolerance**2
    return _largest_deviation(error, rank) <= tolerance


def _largest_deviation(error: Tensor, rank: int) -> float:
    """Compute max_{i≤rank} |σ_i² − 1| of a matrix with this error."""
    return float(torch.linalg.eigvalsh(error)[-rank:].abs().max()) if rank else 0.0


def _errors(weights: Tensor) -> Tensor:
    """Compute W Wᵀ − I or Wᵀ W − I of each matrix, whichever is smaller."""
    rows = weights if weights.shape[1] <= weights.shape[2] else weights.mT
    if len(rows) == 1 and rows.is_cpu and rows.numel() > WIDE:
        # NumPy computes one half of a symmetric product, PyTorch both.
        own = rows[0].numpy()
        products = torch.from_numpy(own @ own.T)[None]
    else:
        products = rows @ rows.mT
    products.diagonal(dim1=1, dim2=2).sub_(1)
    return products


def _best_scale(errors: Tensor) -> Tensor:
    """Compute the factor per matrix, (layers, 1, 1), that brings it nearest to an isometry.

    min_s ‖s² G − I‖_F is at s² = tr G / ‖G‖²_F. A descent from weights far too large or small
    would spend its first steps on this one number.
    """
    grams = errors.double()
    grams.diagonal(dim1=1, dim2=2).add_(1)
    traces = grams.diagonal(dim1=1, dim2=2).sum(1)
    squares = (traces / grams.square().sum((1, 2))).nan_to_num(1.0, 1.0, 1.0)  # no weights: 0 / 0
    return squares.sqrt()[:, None, None].to(errors.dtype)


def _sided(errors: Tensor, weights: Tensor) -> Tensor:
    """Compute (W Wᵀ − I) W = W (Wᵀ W − I), from the Gram matrix of either side."""
    wide = weights.shape[1] <= weights.shape[2]
    return errors @ weights if wide else weights @ errors


def _products(weights: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the change of the error along a direction, per step length and its square."""
    if weights.shape[1] <= weights.shape[2]:
        linear, quadratic = weights @ directions.mT, directions @ directions.mT
    else:
        linear, quadratic = weights.mT @ directions, directions.mT @ directions
    return linear + linear.mT, quadratic


def _probed(weights: Tensor, directions: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `_products` times the probes, (layers, side, probes), without the products."""
    if weights.shape[1] > weights.shape[2]:
        weights, directions = weights.mT, directions.mT
    along = directions.mT @ probes
    return weights @ along + directions @ (weights.mT @ probes), directions @ along


def _line_minima(errors: Tensor, linear: Tensor, quadratic: Tensor) -> list[float]:
    """Find the first minimum a > 0 of ‖E + aS + a²Q‖²_F per matrix; 0 without one.

    Of E Z, S Z and Q Z with random columns in Z the norm is, in expectation, that of E, S and Q.
    """
    pairs = [
        (errors, linear),
        (linear, linear),
        (errors, quadratic),
        (linear, quadratic),
        (quadratic, quadratic),
    ]
    dots = torch.cat([_dot(left, right) for left, right in pairs], dim=1).squeeze(2).tolist()
    lengths = []
    for es, ss, eq, sq, qq in dots:  # half the derivative's coefficients, highest power first
        roots = np.roots([2 * qq, 3 * sq, ss + 2 * eq, es])
        lengths.append(min((r.real for r in roots if r.imag == 0 and r.real > 0), default=0.0))
    return lengths


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Compute ⟨left, right⟩ per matrix in float64, (layers, 1, 1)."""
    return (left * right).sum((1, 2), keepdim=True, dtype=torch.float64)
