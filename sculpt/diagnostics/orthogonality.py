"""Orthogonality score: distance of a network's layers from isometry (Lee et al. 2020, §4.2)."""

import math

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import structural_rank
from torch import Tensor, nn

from sculpt.diagnostics.layers import Layer, matrices_of, weighted_layers


@torch.no_grad()
def layer_orthogonality(model: nn.Module) -> dict[str, float]:
    """Compute ‖W Wᵀ − I‖_F of every conv and linear weight, by parameter name.

    W is (out_channels, in_channels·k·k), block-diagonal where a convolution has groups; pruned
    weights are zeros in it. The paper, whose weights are stored transposed, writes WᵀW.
    """

    def distance(matrix: Tensor) -> float:
        identity = torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
        return float(torch.linalg.matrix_norm(matrix @ matrix.T - identity))

    return {
        name: math.hypot(*map(distance, matrices_of(layer, layer.weight)))
        for name, layer in weighted_layers(model).items()
    }


def orthogonality_score(layers: dict[str, float]) -> float:
    """Average over the layers, OS = (1/K) Σ_l (0 = isometry)."""
    return sum(layers.values()) / len(layers)


def layer_bound(layer: Layer, mask: Tensor) -> float:
    """Compute the smallest ‖W Wᵀ − I‖_F, as in `layer_orthogonality`, of a layer under a mask."""
    return math.hypot(*map(isometry_bound, matrices_of(layer, mask)))


def isometry_bound(mask: Tensor) -> float:
    """Compute the smallest ‖(C⊙W)(C⊙W)ᵀ − I‖_F of any weights W under the mask C of a matrix.

    A masked matrix has at most the structural rank r of its mask, and a positive
    semi-definite matrix of rank r is at least √(rows − r) away from the identity. The bound is
    attained: ones on a maximum matching of rows and columns, zeros elsewhere.

    Args:
        mask: Bool, (out, ...); every dimension after the first is flattened.
    """
    matrix = mask.flatten(1)
    matrix = matrix[matrix.any(1)][:, matrix.any(0)]  # dead rows and columns have no rank
    # A fully dense matrix has full rank, without searching for a matching.
    rank = min(matrix.shape) if matrix.all() else structural_rank(csr_array(matrix.cpu().numpy()))
    return math.sqrt(len(mask) - rank)
