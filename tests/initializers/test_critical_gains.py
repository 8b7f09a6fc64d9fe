"""The critical gains of `ldi`: against the integrals they come from, and in a wide network."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad

from sculpt.initializers.ldi import CRITICAL_GAINS
from sculpt.models.activations import LEAKY_SLOPE, Activation, make_activation

# SELU's constants, Klambauer et al. 2017.
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772

# φ′ from its definition, on either side of the kink, and the variance q of the gain.
SLOPES: dict[Activation, tuple[Callable[[float], float], float]] = {
    "linear": (lambda x: 1, 1),
    "tanh": (lambda x: math.cosh(x) ** -2, 0),
    "relu": (lambda x: float(x > 0), 1),
    "leaky_relu": (lambda x: 1 if x > 0 else LEAKY_SLOPE, 1),
    "selu": (lambda x: SCALE * (1 if x > 0 else ALPHA * math.exp(x)), 1),
}


@pytest.mark.parametrize("activation", CRITICAL_GAINS)
def test_each_gain_agrees_with_adaptive_quadrature(activation):
    slope, q = SLOPES[activation]

    def integrand(z: float) -> float:
        return slope(math.sqrt(q) * z) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    sides = (quad(integrand, *side, epsabs=1e-15, epsrel=1e-13)[0] for side in ((-14, 0), (0, 14)))
    assert CRITICAL_GAINS[activation] == pytest.approx(sum(sides) ** -0.5, rel=1e-12)


@pytest.mark.parametrize(("activation", "wrong"), [("relu", 1.0), ("linear", 1.2), ("tanh", 1.3)])
def test_a_wide_orthogonal_network_keeps_its_gradients_at_this_gain_alone(activation, wrong):
    """The mean squared singular value of ten layers' Jacobian is 1; small signals suit tanh."""
    width, depth = 600, 10
    generator = torch.Generator().manual_seed(0)

    def jacobian_power(gain: float) -> float:
        hidden = 0.01 * torch.randn(width, generator=generator).double()
        tangents = torch.randn(width, 40, generator=generator).double()
        before = tangents.square().mean()
        layer = make_activation(activation)
        for _ in range(depth):
            weight = torch.linalg.qr(torch.randn(width, width, generator=generator).double())[0]
            point = hidden.requires_grad_()
            (slope,) = torch.autograd.grad(layer(point).sum(), point)
            tangents = gain * weight @ (slope[:, None] * tangents)
            hidden = (gain * weight @ layer(point)).detach()
        return float(tangents.square().mean() / before)

    assert jacobian_power(CRITICAL_GAINS[activation]) == pytest.approx(1, abs=0.35)
    assert not 0.5 < jacobian_power(wrong) < 2
