"""SG(γ): one variance for every weight, whatever the layer."""

import pytest
from torch import nn

from sculpt.errors import InputError
from sculpt.pruning.initializers import initialize


@pytest.mark.parametrize("variance", [1e-4, 0.1, 10.0])
def test_every_layer_has_the_same_variance(variance: float):
    model = nn.Sequential(nn.Linear(500, 200), nn.Conv2d(8, 400, 5))
    initialize(model, "gaussian", seed=3, variance=variance)
    for layer in model:
        weight = layer.weight.detach().double()
        # Five standard errors of a normal variance and of its mean.
        assert weight.var() / variance == pytest.approx(1, abs=5 * (2 / weight.numel()) ** 0.5)
        assert abs(weight.mean()) < 5 * (variance / weight.numel()) ** 0.5
        assert not layer.bias.any()


def test_by_default_it_is_one_hundredth():
    model = nn.Linear(1000, 500)
    initialize(model, "gaussian", seed=0)
    assert model.weight.var().item() == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan")])
def test_a_variance_must_be_positive(variance: float):
    with pytest.raises(InputError, match="variance must be above 0"):
        initialize(nn.Linear(2, 2), "gaussian", seed=0, variance=variance)
