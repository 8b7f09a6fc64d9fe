"""The gain of random weights at which signals neither vanish nor explode, in wide networks.

Mean-field theory (Pennington, Schoenholz and Ganguli 2017, *Resurrecting the sigmoid*; 2018,
*The emergence of spectral universality*). With weights of gain σ_w (all singular values σ_w, or
variance σ_w²/fan-in) and biases of variance σ_b², a pre-activation is normal, and its variance
and the squared norm of a gradient pass through one layer as

    q ← σ_w² ∫Dz φ(√q z)² + σ_b²            (fixed point: q*)
    χ = σ_w² ∫Dz φ′(√q* z)²                 (critical: χ = 1)

where Dz is the standard normal measure. Everything is float64.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sculpt.models.activations import Activation, make_activation

# z runs this far to both sides, where the normal density has fallen to 2e-32.
FARTHEST = 12.0
# On each side. Relative errors are below 1e-13 up to q = 10 and 1e-10 up to q = 100; with far
# more nodes numpy's own weights are less exact.
NODES = 100
SMALLEST_DEVIATION = 1e-100
"""√q for q = 0: a limit, because an activation may have a kink at 0 itself."""


@cache
def mean_field_gain(activation: Activation) -> float:
    """Return the critical gain σ_w = (∫Dz φ′(√q* z)²)^(−1/2), at which χ is 1.

    The gain belongs to a variance q* that stays as it is, and to the bias variance
    σ_b² = q* − σ_w² ∫Dz φ(√q* z)² that keeps it there. Here biases start at 0. That fits for
    linear, ReLU and leaky ReLU, whose gain is the same for every q* and whose σ_b² is 0. It fits
    for tanh only in the limit q* → 0, which is taken, where the gain is 1. For SELU it fits at
    q* → 0 alone, too, but SELU is made to keep a variance of 1, so that this is taken (gain
    0.966); without its σ_b² of 0.067, q settles at 0.726 and χ at 1.06.

    Raises:
        InputError: `activation` is not one of its values.
    """
    return mean_squares(activation, 1.0 if activation == "selu" else 0.0)[1] ** -0.5


def mean_squares(activation: Activation, q: float) -> tuple[float, float]:
    """Return (∫Dz φ(√q z)², ∫Dz φ′(√q z)²).

    Gauss-Legendre on each side of 0: Gauss-Hermite, across it, would converge slowly for
    activations that have a kink there.

    Raises:
        InputError: `activation` is not one of its values.
    """
    points, weights = np.polynomial.legendre.leggauss(NODES)
    half = FARTHEST * (points + 1) / 2  # 0 to FARTHEST
    density = weights * FARTHEST / 2 * np.exp(-(half**2) / 2) / math.sqrt(2 * math.pi)
    z = torch.from_numpy(np.concatenate([-half, half]))
    measure = torch.from_numpy(np.concatenate([density, density]))
    measure /= measure.sum()  # 1 but for the error of the nodes, which this takes out
    with torch.enable_grad():  # also where a network is being initialised
        hidden = (max(math.sqrt(q), SMALLEST_DEVIATION) * z).requires_grad_()
        output = make_activation(activation)(hidden)
        (slope,) = torch.autograd.grad(output.sum(), hidden)

    def mean(values: Tensor) -> float:
        return float(measure @ values.detach().square())

    return mean(output), mean(slope)
