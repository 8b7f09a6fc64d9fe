"""Approximate-isometry repair: restore near-orthogonality of each layer's kept weights.

Lee et al. 2020, Eq. 8: per layer, over its kept weights, minimise ‖(C⊙W)(C⊙W)ᵀ − I‖_F. No
data is used. A convolution's W is its kernel as a matrix (out_channels, in_channels·k·k);
each group of a grouped convolution has one of its own.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import (
    Layer,
    Masks,
    by_output,
    check_masks,
    from_outputs,
    layer_groups,
    matrices_of,
    weighted_layers,
)
from sculpt.diagnostics.orthogonality import isometry_bound
from sculpt.errors import InputError, NumericsError, check_choice
from sculpt.repair.exact_isometry import construct_isometry
from sculpt.repair.isometry_descent import WIDE, Norm, descend, isometry_residual

Method = Literal["frobenius", "spectral", "exact"]

TOLERANCE: dict[Norm, float] = {"frobenius": 1e-3, "spectral": 1e-2}
WIDE_TOLERANCE = 1e-2
"""In both norms. σ² is then off by 1 % in the mean (root mean square) where it was off by tens; the
next digit takes a wide layer twice the steps."""

STACK_ON_CPU = WIDE
"""Limit on the weights of a stack. A CPU gains only from stacking small matrices; large ones of
different live sizes would be padded for nothing."""
STACK_ELSEWHERE = 2**26
"""An accelerator waits for launches, so its stacks are as large as its memory allows."""

BLOCK = 16
"""Rows and columns that processors multiply at once: 757 by 2,883 weights take 1.6 times as long as
768 by 2,896 (one core)."""


@dataclass
class LayerRepair:
    """Outcome of the repair of one layer.

    Residuals are ‖(C⊙W)(C⊙W)ᵀ − I‖ of the whole layer, in the spectral norm if the method is
    `spectral`, in the Frobenius norm otherwise.
    """

    before: float
    after: float
    bound: float
    """Smallest residual of any weights under this mask: √(rows − r) in the Frobenius norm, with
    the structural rank r of the mask; in the spectral norm 0 if r = rows, else 1."""
    seconds: float
    """The layer's share of the time of its stack."""
    steps: int = 0
    converged: bool = False
    """Whether the repair ended within tolerance of the bound."""
    constructed: bool = False
    """Whether the weights were constructed (`construct_isometry`), by `method` or because the
    descent stalled above the bound."""


@torch.no_grad()
def repair_isometry(
    model: nn.Module,
    masks: Masks,
    *,
    method: Method = "frobenius",
    max_steps: int = 2000,
    tolerance: float | None = None,
) -> dict[str, LayerRepair]:
    """Repair every masked conv and linear weight of a model, in place; frozen ones are left alone.

    The descent runs on the *squared* Frobenius norm (the un-squared norm's gradient has a
    constant length and keeps oscillating), on stacks of layers of equal shape, see
    `sculpt.repair.isometry_descent`. The problem is not convex: a row may end at zero although
    the mask has room for it. A layer whose descent stalls above its bound is constructed instead.

    Args:
        model: Its pruned weights are zero afterwards; biases are not touched.
        masks: Keyed by parameter name.
        method: `frobenius`: descend until ‖(C⊙W)(C⊙W)ᵀ − I‖_F is at its bound (Eq. 8). `spectral`:
            descend until all singular values that can be 1 (as many as the mask's structural rank)
            are; this minimises ‖(C⊙W)(C⊙W)ᵀ − I‖₂ and, where that is at least 1 because the mask
            lacks rank, also the deviations below it. The path is that of the smooth Frobenius
            norm, the stopping rule that of the spectral norm. `exact`: construct weights at the
            bound, up to rounding; no steps, more time (see `construct_isometry`).
        max_steps: Limit on steps per layer.
        tolerance: Distance of the residual from its bound, relative to the norm of the identity:
            the layer's √rows, or 1 for `spectral`. By default 1e-3, and 1e-2 for `spectral`,
            which waits for the slowest singular value of all, and for matrices of more than
            2^18 weights.

    Returns:
        The outcome per layer, keyed by the weight's parameter name.

    Raises:
        InputError: `method` is not one of its values, `max_steps` or `tolerance` is below 0, or the
            masks do not fit the model.
        NumericsError: a weight is not finite.
    """
    check_choice("method", method, get_args(Method))
    if max_steps < 0 or (tolerance is not None and not tolerance >= 0):
        raise InputError(
            "max_steps and tolerance must be 0 or more, but got "
            f"max_steps {max_steps} and tolerance {tolerance}"
        )
    norm: Norm = "spectral" if method == "spectral" else "frobenius"
    material_weights(model)
    masks = check_masks(model, masks, of_biases=False)
    layers = {n: layer for n, layer in weighted_layers(model).items() if layer.weight.requires_grad}
    for name, layer in layers.items():
        if not torch.isfinite(layer.weight).all():
            raise NumericsError(
                f"weights must be finite to be repaired, but some of {name} are not; check the "
                "initialisation"
            )
    repairs: dict[str, LayerRepair] = {}
    parts: dict[str, list[_Matrix]] = {}
    for name, layer in layers.items():
        if layer_groups(layer) == len(by_output(layer, layer.weight)) and max_steps:
            repairs[name] = _scale_rows(layer, masks[name], norm)
            continue
        pairs = zip(matrices_of(layer, layer.weight), matrices_of(layer, masks[name]), strict=True)
        parts[name] = [_Matrix(weight, own, norm, tolerance) for weight, own in pairs]
    matrices = [matrix for own in parts.values() for matrix in own]
    if method == "exact":
        for matrix in matrices:
            matrix.construct()
    else:
        for stack in _stacks(matrices):
            _repair_stack(stack, max_steps)
    for name, own in parts.items():
        whole = torch.cat([matrix.whole() for matrix in own])
        layers[name].weight.copy_(from_outputs(layers[name], whole))
        repairs[name] = _joined(own, norm)
    return {name: repairs[name] for name in layers}


def _scale_rows(layer: Layer, mask: Tensor, norm: Norm) -> LayerRepair:
    """Repair a depthwise convolution: a row that is a matrix of its own is one at length 1."""
    start = perf_counter()
    kept = by_output(layer, mask).flatten(1)
    dtype = torch.promote_types(layer.weight.dtype, torch.float32)
    rows = by_output(layer, layer.weight).flatten(1).to(dtype) * kept
    empty = ~kept.any(1)

    def deviations(weight: Tensor) -> Tensor:
        return (weight.square().sum(1, dtype=torch.float64) - 1).abs()

    def residual(weight: Tensor) -> float:
        found = deviations(weight)
        return float(torch.linalg.vector_norm(found) if norm == "frobenius" else found.max())

    before = residual(rows)
    directions = torch.where(rows.any(1, keepdim=True), rows, kept.to(dtype))
    scaled = nn.functional.normalize(directions).to(layer.weight.dtype).to(dtype)  # as written
    better = deviations(scaled) < deviations(rows)
    rows = torch.where(better[:, None], scaled, rows)
    layer.weight.copy_(from_outputs(layer, rows.view_as(by_output(layer, layer.weight))))
    lost = int(empty.sum())
    bound = math.sqrt(lost) if norm == "frobenius" else float(lost > 0)
    seconds = perf_counter() - start
    return LayerRepair(before, residual(rows), bound, seconds, steps=1, converged=True)


def _joined(matrices: list["_Matrix"], norm: Norm) -> LayerRepair:
    """Join the outcomes of a layer's groups, which are blocks of one block-diagonal matrix."""
    outcomes = [matrix.outcome for matrix in matrices]

    def join(residuals: list[float]) -> float:
        return math.hypot(*residuals) if norm == "frobenius" else max(residuals)

    return LayerRepair(
        before=join([o.before for o in outcomes]),
        after=join([o.after for o in outcomes]),
        bound=join([o.bound for o in outcomes]),
        seconds=sum(o.seconds for o in outcomes),
        steps=max(o.steps for o in outcomes),
        converged=all(o.converged for o in outcomes),
        constructed=any(o.constructed for o in outcomes),
    )


class _Matrix:
    """A matrix in repair: the weight of a layer, or of one of its groups, without the rows and
    columns that are pruned entirely."""

    def __init__(self, weight: Tensor, mask: Tensor, norm: Norm, tolerance: float | None):
        start = perf_counter()
        if tolerance is None:
            tolerance = WIDE_TOLERANCE if mask.numel() > WIDE else TOLERANCE[norm]
        self.tolerance = tolerance
        self.norm, self.shape, self.dtype = norm, mask.shape, weight.dtype
        self.live = mask.any(1).nonzero(), mask.any(0).nonzero().T  # index the live submatrix
        self.mask = mask[self.live]
        # Half precision is coarser than the tolerance.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.weight = weight[self.live].to(dtype) * self.mask
        frobenius_bound = isometry_bound(mask)
        self.rank = len(mask) - round(frobenius_bound**2)
        bound = frobenius_bound if norm == "frobenius" else float(self.rank < len(mask))
        before = self.residual(self.weight)
        self.outcome = LayerRepair(before, before, bound, perf_counter() - start)

    def residual(self, weight: Tensor) -> float:
        return isometry_residual(weight, rows=self.shape[0], rank=self.rank, norm=self.norm)

    def accept(self, weight: Tensor) -> bool:
        """Take these weights unless they are worse than the present ones."""
        weight = weight.to(self.dtype).to(self.weight)  # as it will be written
        after = self.residual(weight)
        if after > self.outcome.after:
            return False
        self.weight, self.outcome.after = weight, after
        return True

    def construct(self) -> None:
        start = perf_counter()
        self.outcome.constructed = self.accept(construct_isometry(self.weight, self.mask))
        self.outcome.converged = self.is_within()
        self.outcome.seconds += perf_counter() - start

    def is_within(self) -> bool:
        """Tell whether the weights, as they will be written, are within tolerance."""
        unit = math.sqrt(self.shape[0]) if self.norm == "frobenius" else 1.0
        return (
            self.outcome.after <= self.outcome.bound + 1.01 * self.tolerance * unit
        )  # the 0.01 is for rounding

    def whole(self) -> Tensor:
        whole = self.weight.new_zeros(self.shape)
        whole[self.live] = self.weight
        return whole


def _stacks(matrices: list[_Matrix]) -> Iterator[list[_Matrix]]:
    """Group matrices of equal shape, device and dtype into stacks within the limit."""
    groups: dict[tuple, list[_Matrix]] = {}
    for matrix in matrices:
        key = (matrix.shape, matrix.weight.device, matrix.weight.dtype)
        groups.setdefault(key, []).append(matrix)
    for (_, device, _), group in groups.items():
        limit = STACK_ON_CPU if device.type == "cpu" else STACK_ELSEWHERE
        size = max(1, limit // max(1, *(matrix.mask.numel() for matrix in group)))
        for first in range(0, len(group), size):
            yield group[first : first + size]


def _repair_stack(stack: list[_Matrix], max_steps: int) -> None:
    """Descend a stack of matrices of equal shape; construct those that stall."""
    start = perf_counter()
    live_rows = max(matrix.mask.shape[0] for matrix in stack)
    live_columns = max(matrix.mask.shape[1] for matrix in stack)
    if live_rows * live_columns > WIDE:
        live_rows, live_columns = (
            -(-length // BLOCK) * BLOCK for length in (live_rows, live_columns)
        )
    weights = stack[0].weight.new_zeros(len(stack), live_rows, live_columns)
    masks = torch.zeros_like(weights)
    for position, matrix in enumerate(stack):
        rows, columns = matrix.mask.shape
        weights[position, :rows, :columns] = matrix.weight
        masks[position, :rows, :columns] = matrix.mask
    descents = descend(
        weights,
        masks,
        rows=stack[0].shape[0],
        ranks=[matrix.rank for matrix in stack],
        norm=stack[0].norm,
        max_steps=max_steps,
        tolerance=stack[0].tolerance,
    )
    for matrix, descent in zip(stack, descents, strict=True):
        rows, columns = matrix.mask.shape
        matrix.accept(descent.weight[:rows, :columns])
        matrix.outcome.steps = descent.steps
        matrix.outcome.converged = descent.converged and matrix.is_within()
    seconds = perf_counter() - start
    steps = sum(descent.steps + 1 for descent in descents)
    for matrix, descent in zip(stack, descents, strict=True):
        matrix.outcome.seconds += seconds * (descent.steps + 1) / steps
        if descent.stalled:
            matrix.construct()
