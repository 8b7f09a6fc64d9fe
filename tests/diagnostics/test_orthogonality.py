"""The orthogonality score against its formula."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sculpt.diagnostics.orthogonality import layer_orthogonality, orthogonality_score
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import apply_masks, dense_masks
from sculpt.repair.isometry import repair_isometry


def test_it_is_the_formula_of_every_layer():
    model = resnet(3, 10, blocks=1, stem_width=4, shortcut="projection")
    scores = layer_orthogonality(model)
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    assert list(scores) == list(weights)
    for name, weight in weights.items():
        matrix = weight.detach().numpy().reshape(len(weight), -1).astype(np.float64)
        expected = np.sqrt(np.sum((matrix @ matrix.T - np.eye(len(matrix))) ** 2))
        assert scores[name] == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize(
    ("inputs", "outputs", "dead", "gain", "expected"),
    [
        (12, 9, 0, 1.0, 0),
        (4, 13, 0, 1.0, 3),  # more outputs than inputs cannot score zero
        (20, 8, 5, 1.0, math.sqrt(5)),  # a pruned row costs 1
        (6, 6, 0, 2.0, 3 * math.sqrt(6)),
    ],
)
def test_orthogonal_layers(inputs, outputs, dead, gain, expected):
    model = nn.Sequential(nn.Linear(inputs, outputs), nn.Linear(outputs, outputs))
    initialize(model, "ldi", seed=0, gain=gain)
    model[0].weight.data[:dead] = 0
    found = layer_orthogonality(model)
    assert found["0.weight"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert orthogonality_score(found) == sum(found.values()) / 2


def test_the_repair_reports_the_same_figure():
    model = nn.Conv2d(4, 8, 3)
    initialize(model, "ldi", seed=0)
    masks = dense_masks(model)
    masks["weight"] = torch.rand(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3
    apply_masks(model, masks)
    before = layer_orthogonality(model)["weight"]
    repaired = repair_isometry(model, masks)["weight"]
    assert repaired.before == pytest.approx(before, rel=1e-5)
    assert repaired.after == pytest.approx(layer_orthogonality(model)["weight"], rel=1e-3, abs=1e-4)
