"""The critical gains: against closed forms, adaptive quadrature, samples and a wide network."""

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

from sculpt.errors import InputError
from sculpt.models.activations import LEAKY_SLOPE, Activation, make_activation
from sculpt.pruning.mean_field import mean_field_gain, mean_squares

NAMES = get_args(Activation)
VARIANCES = [1e-6, 0.1, 1.0, 10.0]

# SELU's constants, Klambauer et al. 2017.
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772

# φ and φ′ from their definitions; φ′ on either side of the kink.
FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "linear": (lambda x: x, lambda x: 1),
    "tanh": (math.tanh, lambda x: math.cosh(x) ** -2),
    "relu": (lambda x: max(x, 0), lambda x: float(x > 0)),
    "leaky_relu": (lambda x: x if x > 0 else 0.01 * x, lambda x: 1 if x > 0 else 0.01),
    "selu": (
        lambda x: SCALE * (x if x > 0 else ALPHA * math.expm1(x)),
        lambda x: SCALE * (1 if x > 0 else ALPHA * math.exp(x)),
    ),
}


def by_quadrature(function: Callable[[float], float], q: float) -> float:
    """Integrate the square over the normal measure, each side of 0 for itself."""

    def integrand(z: float) -> float:
        return function(math.sqrt(q) * z) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    sides = (quad(integrand, *side, epsabs=1e-15, epsrel=1e-13)[0] for side in ((-14, 0), (0, 14)))
    return sum(sides)


def critical(activation: Activation, q: float) -> tuple[float, float]:
    """Return the gain at which χ is 1 and the bias variance with which q stays as it is."""
    square, squared_slope = mean_squares(activation, q)
    return squared_slope**-0.5, q - square / squared_slope


def fixed_point(activation: Activation, gain: float, bias_variance: float) -> float:
    """Return the variance, from 0.1 to 10, that a layer passes on as it is."""
    return brentq(lambda q: gain**2 * mean_squares(activation, q)[0] + bias_variance - q, 0.1, 10)


@pytest.mark.parametrize("q", [0, *VARIANCES])
@pytest.mark.parametrize(
    ("activation", "expected"),
    [("linear", 1), ("relu", math.sqrt(2)), ("leaky_relu", math.sqrt(2 / (1 + LEAKY_SLOPE**2)))],
)
def test_homogeneous_activations_have_one_gain_and_need_no_biases(
    activation: Activation, expected: float, q: float
):
    assert mean_field_gain(activation) == pytest.approx(expected, rel=1e-14)
    gain, bias_variance = critical(activation, q)
    assert gain == pytest.approx(expected, rel=1e-14)
    assert bias_variance == pytest.approx(0, abs=1e-14 * q + 1e-100)


@pytest.mark.parametrize("q", VARIANCES)
@pytest.mark.parametrize("activation", NAMES)
def test_the_integrals_agree_with_adaptive_quadrature(activation: Activation, q: float):
    expected = [by_quadrature(function, q) for function in FUNCTIONS[activation]]
    with torch.no_grad():  # the slope is asked for all the same
        assert mean_squares(activation, q) == pytest.approx(expected, rel=1e-12)


def test_tanh_without_biases_is_critical_where_the_gain_is_1():
    assert mean_field_gain("tanh") == pytest.approx(1, rel=1e-15)
    assert critical("tanh", 0)[1] == pytest.approx(0, abs=1e-100)
    # φ′(x)² = 1 − 2x² + …, so that σ_w = 1 + q for small q.
    assert critical("tanh", 1e-5)[0] == pytest.approx(1 + 1e-5, abs=1e-9)
    assert critical("tanh", 1)[0] == pytest.approx(1.46741359, rel=1e-8)


def test_selu_has_the_gain_of_the_variance_it_is_made_to_keep():
    """Klambauer et al. 2017: at σ_w 1 the variance 1 stays; it is not quite critical."""
    assert mean_squares("selu", 1)[0] == pytest.approx(1, rel=1e-12)
    assert mean_field_gain("selu") == critical("selu", 1)[0]
    assert mean_field_gain("selu") == pytest.approx(0.9660257770, rel=1e-9)
    assert critical("selu", 1)[1] == pytest.approx(0.0667941982, rel=1e-8)
    # At q = 0, a kink between two slopes.
    slopes = SCALE**2 * (1 + ALPHA**2) / 2
    assert critical("selu", 0)[0] == pytest.approx(slopes**-0.5, rel=1e-13)


def test_what_becomes_of_selu_without_its_biases():
    """The figures of the docstring: where q settles, and χ there."""
    gain = mean_field_gain("selu")
    q = fixed_point("selu", gain, 0)
    assert q == pytest.approx(0.726, abs=5e-4)
    assert gain**2 * mean_squares("selu", q)[1] == pytest.approx(1.06, abs=5e-3)
    assert fixed_point("selu", gain, critical("selu", 1)[1]) == pytest.approx(1, abs=1e-9)


def test_no_gain_is_critical_without_biases_but_at_the_default_of_tanh():
    """σ_b² > 0 wherever q > 0, which is why the defaults are what they are."""
    for q in (1e-3, 0.01, 0.1, 0.5, 1.0, 3.0, 10.0):
        for activation in ("tanh", "selu"):
            assert critical(activation, q)[1] > 0, (activation, q)


@pytest.mark.parametrize(("activation", "wrong"), [("relu", 1.0), ("selu", 1.3), ("tanh", 1.6)])
def test_a_wide_orthogonal_network_keeps_its_gradients_at_this_gain_alone(
    activation: Activation, wrong: float
):
    """The mean squared singular value of ten layers' Jacobian is χ^10, which is 1."""
    width, depth, q = 600, 10, 0.8
    generator = torch.Generator().manual_seed(0)
    gain, bias_variance = critical(activation, q)

    def jacobian_power(gain: float) -> float:
        hidden = q**0.5 * torch.randn(width, generator=generator).double()
        tangents = torch.randn(width, 40, generator=generator).double()
        before = tangents.square().mean()
        layer = make_activation(activation)
        for _ in range(depth):
            weight = torch.linalg.qr(torch.randn(width, width, generator=generator).double())[0]
            point = hidden.requires_grad_()
            (slope,) = torch.autograd.grad(layer(point).sum(), point)
            bias = max(bias_variance, 0) ** 0.5 * torch.randn(width, generator=generator).double()
            tangents = gain * weight @ (slope[:, None] * tangents)
            hidden = (gain * weight @ layer(point) + bias).detach()
        return float(tangents.square().mean() / before)

    assert jacobian_power(gain) == pytest.approx(1, abs=0.35)
    assert not 0.5 < jacobian_power(wrong) < 2


def test_what_has_no_gain_is_refused():
    unknown: Any = "gelu"
    with pytest.raises(InputError, match=r"activation must be one of .* but got 'gelu'"):
        mean_field_gain(unknown)
