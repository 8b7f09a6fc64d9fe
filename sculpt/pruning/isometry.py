"""Approximate-isometry repair: bring each layer's kept weights back near orthogonality.

Lee et al. 2020, Eq. 8: per layer, over its kept weights, minimise ‖(C⊙W)(C⊙W)ᵀ − I‖_F. No
data is used. A convolution's W is its kernel as a matrix (out_channels, in_channels·k·k).
"""

import math
from dataclasses import dataclass
from time import perf_counter

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import structural_rank
from torch import Tensor, nn

from sculpt.pruning.masks import Masks, prunable_parameters

STEP = 0.5
MOMENTUM = 0.9
STEPS_PER_CHECK = 10
"""Reading the residual waits for the device; ten steps apart it costs nothing."""


@dataclass(frozen=True)
class LayerRepair:
    """What the repair did to one layer. Residuals are ‖(C⊙W)(C⊙W)ᵀ − I‖_F."""

    before: float
    after: float
    bound: float
    """No weights under this mask have a smaller residual."""
    steps: int
    seconds: float


def isometry_bound(mask: Tensor) -> float:
    """Return the smallest ‖(C⊙W)(C⊙W)ᵀ − I‖_F that any weights W can have under a mask C.

    A masked matrix has at most the structural rank r of its mask, and a positive
    semi-definite matrix of rank r is at least √(rows − r) away from the identity. The bound is
    attained: ones on a maximum matching of rows and columns, zeros elsewhere.

    Args:
        mask:
            Bool, (out, ...); every dimension after the first is flattened.
    """
    matrix = mask.flatten(1)
    matrix = matrix[matrix.any(1)][:, matrix.any(0)]  # dead rows and columns have no rank
    # A fully dense matrix has full rank; the search for a matching is for sparse ones.
    rank = min(matrix.shape) if matrix.all() else structural_rank(csr_array(matrix.cpu().numpy()))
    return math.sqrt(len(mask) - rank)


@torch.no_grad()
def repair_isometry(
    model: nn.Module, masks: Masks, *, max_steps: int = 2000, tolerance: float = 1e-3
) -> dict[str, LayerRepair]:
    """Repair every masked conv and linear weight of a model, in place.

    Gradient descent with momentum on the *squared* norm (the un-squared norm's gradient has a
    constant length and keeps oscillating). A layer is done when its residual is within
    `tolerance` of its bound, when it no longer improves, or after `max_steps`.

    Args:
        model:
            Its pruned weights are zero before and after; biases are not touched.
        masks:
            Keyed by parameter name.
        max_steps:
            Upper limit on steps per layer.
        tolerance:
            How close the residual must come to its bound, relative to the layer's √rows.

    Returns:
        What was done, keyed by the weight's parameter name.
    """
    report = {}
    for name, parameter in prunable_parameters(model).items():
        if parameter.dim() < 2:
            continue
        start = perf_counter()
        mask = masks[name].flatten(1)
        bound = isometry_bound(mask)
        weight, before, after, steps = _descend(
            parameter.flatten(1), mask, bound, max_steps, tolerance * math.sqrt(len(mask))
        )
        parameter.copy_(weight.view_as(parameter))
        report[name] = LayerRepair(before, after, bound, steps, perf_counter() - start)
    return report


def _descend(
    weight: Tensor, mask: Tensor, bound: float, max_steps: int, slack: float
) -> tuple[Tensor, float, float, int]:
    """Return (repaired weight, residual before, residual after, steps taken)."""
    weight = weight * mask
    before = best = _error(weight).norm().item()
    repaired = weight
    if before <= bound + slack or not mask.any():
        return repaired, before, before, 0
    # The step is stable for singular values up to about 1, so start from there.
    weight = weight / max(1.0, torch.linalg.matrix_norm(weight, 2).item())
    velocity = torch.zeros_like(weight)
    steps = 0
    while steps < max_steps:
        for _ in range(min(STEPS_PER_CHECK, max_steps - steps)):
            gradient = (_error(weight) @ weight) * mask  # of ¼‖WWᵀ − I‖²_F
            velocity.mul_(MOMENTUM).sub_(gradient, alpha=STEP)
            weight = weight + velocity
            steps += 1
        residual = _error(weight).norm().item()
        if residual < best:
            stalled = best - residual < 1e-5 * best
            best, repaired = residual, weight
        else:
            stalled = False
        if best <= bound + slack or stalled:
            break
    return repaired, before, best, steps


def _error(weight: Tensor) -> Tensor:
    """Return W Wᵀ − I."""
    return weight @ weight.T - torch.eye(len(weight), device=weight.device, dtype=weight.dtype)
