"""Activations by name."""

import math
from typing import Any, get_args

import pytest
import torch

from sculpt.diagnostics.topology import REPLACED_BY_IDENTITY
from sculpt.errors import InputError
from sculpt.models.activations import Activation, make_activation

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
    assert name == "linear" or isinstance(make_activation(name), REPLACED_BY_IDENTITY)


def test_an_unknown_name_is_refused():
    unknown: Any = "gelu"
    with pytest.raises(InputError, match=r"must be one of linear, tanh, .*selu, but got 'gelu'"):
        make_activation(unknown)
