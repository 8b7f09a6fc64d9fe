"""The variances of normal weights, measured on enough of them to tell them apart."""

import pytest
import torch
from torch import nn

from sculpt.errors import InputError
from sculpt.initializers import initialize
from sculpt.initializers.variance_scaling import variance_scaling

# fan_in, fan_out of 240,000 and 110,592 weights.
LINEAR = nn.Linear(600, 400), 600, 400
CONV = nn.Conv2d(64, 192, 3), 64 * 9, 192 * 9


@pytest.mark.parametrize(("layer", "fan_in", "fan_out"), [LINEAR, CONV], ids=["linear", "conv"])
@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("variant", ["lecun", "glorot", "he"])
def test_mean_and_variance(variant, scale, layer, fan_in, fan_out):
    expected = {"lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in}[variant]
    weight = variance_scaling(
        layer, torch.Generator().manual_seed(0), variant=variant, scale=scale
    ).double()
    # Five standard errors of the mean and of the variance of a normal sample.
    count = weight.numel()
    variance = scale * expected
    assert abs(weight.mean()) < 5 * (variance / count) ** 0.5
    assert abs(weight.var() - variance) < 5 * variance * (2 / count) ** 0.5


def test_the_weights_are_normal():
    weight = variance_scaling(LINEAR[0], torch.Generator().manual_seed(0)).double()
    standard = (weight - weight.mean()) / weight.std()
    # Fourth moment 3 ± 5 standard errors, where the uniform distribution has 1.8.
    assert abs(standard.pow(4).mean() - 3) < 5 * (96 / weight.numel()) ** 0.5
    assert abs(standard.pow(3).mean()) < 5 * (15 / weight.numel()) ** 0.5


def test_the_default_is_he():
    default, he = (
        variance_scaling(LINEAR[0], torch.Generator().manual_seed(0), **options)
        for options in ({}, {"variant": "he"})
    )
    assert torch.equal(default, he)


def test_a_grouped_convolution_counts_the_inputs_of_one_group():
    layer = nn.Conv2d(64, 512, 3, groups=4)
    weight = variance_scaling(layer, torch.Generator().manual_seed(0))
    expected = 2 / (16 * 9)
    bound = 5 * expected * (2 / weight.numel()) ** 0.5
    assert abs(weight.double().var() - expected) < bound


def test_an_unknown_variant_is_refused():
    with pytest.raises(InputError, match="variant must be one of lecun, glorot, he, but got 'xav"):
        variance_scaling(nn.Linear(2, 2), torch.Generator(), variant="xavier")


@pytest.mark.parametrize("variance", [1e-4, 0.1, 10.0])
def test_gaussian_has_one_variance_in_every_layer(variance):
    model = nn.Sequential(nn.Linear(500, 200), nn.Conv2d(8, 400, 5))
    initialize(model, "gaussian", seed=3, variance=variance)
    for layer in model:
        weight = layer.weight.detach().double()
        # Five standard errors of a normal variance and of its mean.
        assert weight.var() / variance == pytest.approx(1, abs=5 * (2 / weight.numel()) ** 0.5)
        assert abs(weight.mean()) < 5 * (variance / weight.numel()) ** 0.5
        assert not layer.bias.any()


def test_the_default_of_gaussian_is_one_hundredth():
    model = nn.Linear(1000, 500)
    initialize(model, "gaussian", seed=0)
    assert model.weight.var().item() == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan")])
def test_the_variance_of_gaussian_must_be_positive(variance):
    with pytest.raises(InputError, match="variance must be above 0"):
        initialize(nn.Linear(2, 2), "gaussian", seed=0, variance=variance)
