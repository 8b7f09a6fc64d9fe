"""The orthogonality score: how far a network's layers are from isometry (Lee et al. 2020, §4.2)."""

import torch
from torch import nn


@torch.no_grad()
def layer_orthogonality(model: nn.Module) -> dict[str, float]:
    """Return ‖W Wᵀ − I‖_F of every conv and linear weight, by parameter name.

    W is (out_channels, in_channels·k·k); pruned weights are zeros in it. The paper, whose
    weights are stored transposed, writes WᵀW.
    """
    scores = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            matrix = layer.weight.flatten(1)
            identity = torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
            scores[f"{name}.weight" if name else "weight"] = float(
                torch.linalg.matrix_norm(matrix @ matrix.T - identity)
            )
    return scores


def orthogonality_score(layers: dict[str, float]) -> float:
    """Return the network's score: the mean over its layers, OS = (1/K) Σ_l (0 = isometry)."""
    return sum(layers.values()) / len(layers)
