"""Activations by name."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import nn

from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import InputError
from sculpt.models.activations import Activation, make_activation
from sculpt.pruning.masks import dense_masks

NAMES = get_args(Activation)

# At −2 and 3, from their definitions; SELU with the constants of Klambauer et al. 2017.
VALUES = {
    "linear": (-2, 3),
    "tanh": (math.tanh(-2), math.tanh(3)),
    "relu": (0, 3),
    "leaky_relu": (-0.02, 3),
    "selu": (1.05070098735548 * 1.67326324235438 * math.expm1(-2), 1.05070098735548 * 3),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_values(name):
    inputs = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    assert make_activation(name)(inputs).tolist() == pytest.approx(VALUES[name], rel=1e-12)
    assert inputs.tolist() == [-2, 3]  # not in place


@pytest.mark.parametrize("name", NAMES)
def test_paths_go_through_it(name):
    model = nn.Sequential(nn.Linear(3, 4), make_activation(name), nn.Linear(4, 2))
    found = measure_topology(model, dense_masks(model), (3,))
    assert 10**found.log10_paths == pytest.approx(3 * 4 * 2)


def test_an_unknown_name_is_refused():
    unknown: Any = "gelu"
    with pytest.raises(InputError, match=r"must be one of linear, tanh, .*selu, but got 'gelu'"):
        make_activation(unknown)
