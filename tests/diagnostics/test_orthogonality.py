"""The orthogonality score against its formula."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sculpt.diagnostics.orthogonality import layer_orthogonality, orthogonality_score
from sculpt.models.resnet import resnet
from sculpt.pruning.initializers import initialize
from sculpt.pruning.isometry import repair_isometry
from sculpt.pruning.masks import apply_masks, dense_masks


def test_it_is_the_formula_of_every_layer():
    model = resnet(3, 10, blocks=1, stem_width=4, shortcut="projection")

    scores = layer_orthogonality(model)

    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    assert list(scores) == list(weights)
    for name, weight in weights.items():
        matrix = weight.detach().numpy().reshape(len(weight), -1).astype(np.float64)
        expected = np.sqrt(np.sum((matrix @ matrix.T - np.eye(len(matrix))) ** 2))
        assert scores[name] == pytest.approx(expected, rel=1e-5), name


def test_an_orthogonal_linear_network_scores_zero():
    model = nn.Sequential(nn.Linear(12, 9), nn.Linear(9, 9), nn.Linear(9, 4))
    initialize(model, "ldi", seed=0)
    layers = layer_orthogonality(model)

    assert list(layers) == ["0.weight", "1.weight", "2.weight"]
    assert orthogonality_score(layers) == pytest.approx(0, abs=1e-5)


def test_more_outputs_than_inputs_cannot_score_zero():
    model = nn.Linear(4, 13)
    initialize(model, "ldi", seed=0)
    assert layer_orthogonality(model) == {"weight": pytest.approx(3, abs=1e-5)}


def test_pruned_rows_cost_1_each():
    model = nn.Linear(20, 8)
    initialize(model, "ldi", seed=0)
    masks = dense_masks(model)
    masks["weight"][:5] = False
    apply_masks(model, masks)
    assert layer_orthogonality(model)["weight"] == pytest.approx(math.sqrt(5), abs=1e-5)


def test_the_score_is_the_mean_over_layers():
    assert orthogonality_score({"a": 1.0, "b": 2.0, "c": 6.0}) == 3


def test_the_scale_matters():
    model = nn.Linear(6, 6)
    initialize(model, "ldi", seed=0, gain=2.0)
    assert layer_orthogonality(model)["weight"] == pytest.approx(3 * math.sqrt(6), rel=1e-5)


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
