"""Layerwise dynamical isometry: every layer's Jacobian has singular values near 1.

Lee et al. 2020, §4.2; convolutions after Xiao et al. 2018, Algorithm 2.
"""

from functools import partial
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.diagnostics.layers import layer_groups
from sculpt.errors import InputError, check_choice
from sculpt.models.activations import Activation
from sculpt.pruning.initializers.variance_scaling import WeightedLayer
from sculpt.registry import INITIALIZERS

Kernel = Literal["block", "delta"]

CRITICAL_GAINS: dict[Activation, float] = {
    "linear": 1.0000000000000002,
    "tanh": 1.0000000000000002,
    "relu": 1.4142135623730951,
    "leaky_relu": 1.4141428569978356,
    "selu": 0.9660257769738999,
}
"""σ_w = (∫Dz φ′(√q z)²)^(−1/2), at which wide networks neither lose nor amplify gradients.

Mean-field theory (Pennington, Schoenholz and Ganguli 2017, *Resurrecting the sigmoid*), with the
standard normal measure Dz, biases of 0, and the integrals' last digits as computed. For linear,
ReLU and leaky ReLU the gain is the same for every variance q of a pre-activation. For tanh it is
that of the limit q → 0; for SELU that of q = 1, the variance it is made to keep (without the bias
variance 0.067 that keeps it there, q settles at 0.726, where σ_w² ∫Dz φ′(√q z)² is 1.06)."""


@INITIALIZERS.register("ldi")
def ldi(
    layer: WeightedLayer,
    generator: torch.Generator,
    *,
    kernel: Kernel = "block",
    gain: Annotated[float, Field(gt=0, le=1e6)] | Activation = 1.0,
) -> Tensor:
    """Draw an orthogonal weight: semi-orthogonal for linear layers, a kernel for convolutions.

    Args:
        layer: A linear layer, or a convolution, transposed or not, with a square kernel.
        kernel: `block`: block convolution-orthogonal; a weight is zero only by chance, in layers of
            very few channels. `delta`: only the kernel's centre is not zero. It is orthogonal too,
            but its zeros score 0 under connection sensitivity, and the ranking runs dry at low
            sparsity (`initialize` warns).
        gain: All singular values; 1 in the paper's code. The name of an activation stands for its
            critical gain (`CRITICAL_GAINS`), for every layer alike: with it, the Jacobian of a
            layer *and* its activation preserves the mean squared norm.

    Raises:
        InputError: the convolution's kernel is not square, or not two-dimensional, or `kernel`
            or `gain` is not one of its values.
    """
    check_choice("kernel", kernel, get_args(Kernel))
    if isinstance(gain, str):
        check_choice("gain", gain, get_args(Activation))
        gain = CRITICAL_GAINS[gain]
    if isinstance(layer, nn.Linear):
        groups = layer_groups(layer)
        rows = layer.out_features // groups
        matrices = [orthogonal_matrix(rows, layer.in_features, generator) for _ in range(groups)]
        return gain * torch.cat(matrices).float()
    size = layer.kernel_size
    if len(size) != 2 or size[0] != size[1]:
        raise InputError(
            f"an orthogonal convolution must have a square two-dimensional kernel, but got {size};"
            " use the initializer variance_scaling for this network"
        )
    build = block_kernel if kernel == "block" else delta_kernel
    first, second = layer.weight.shape[:2]  # outputs and inputs, or of a transposed one the reverse
    if layer.transposed and kernel == "block":
        # A step over several pixels spreads an input over as many, each with weights of its own.
        patch = min(*layer.stride, *size) if max(layer.dilation) == 1 else 1
        build = partial(spreading_kernel, patch=patch)
    # Every group of a grouped convolution is a convolution of its own.
    groups = [build(first // layer.groups, second, size[0], generator) for _ in range(layer.groups)]
    return gain * torch.cat(groups).float()


def orthogonal_matrix(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw a (rows, columns) float64 matrix, orthonormal along its shorter side (Haar)."""
    return nn.init.orthogonal_(torch.empty(rows, columns, dtype=torch.float64), generator=generator)


def block_kernel(
    out_channels: int, in_channels: int, size: int, generator: torch.Generator
) -> Tensor:
    """Draw a kernel (out, in, size, size) whose circular convolution preserves norms.

    An orthogonal matrix maps the inputs into the larger number of channels, where `size − 1`
    convolutions with 2×2 orthogonal blocks spread it over the kernel. With more inputs than
    outputs no convolution preserves all norms; then the kernel is the adjoint of the one from
    outputs to inputs, which preserves the norms of everything it does not send to zero.
    """
    if in_channels > out_channels:
        return block_kernel(in_channels, out_channels, size, generator).transpose(0, 1).flip(2, 3)
    spread = torch.eye(out_channels, dtype=torch.float64)[None, None]  # (1, 1, out, out)
    for _ in range(size - 1):
        spread = convolve(spread, orthogonal_block(out_channels, generator))
    mix = orthogonal_matrix(out_channels, in_channels, generator)  # orthonormal columns
    return (spread @ mix).permute(2, 3, 0, 1)  # (size, size, out, in) -> (out, in, size, size)


def spreading_kernel(
    in_channels: int, out_channels: int, size: int, generator: torch.Generator, *, patch: int
) -> Tensor:
    """Draw a kernel (in, out, size, size) of a transposed convolution that preserves norms.

    An orthogonal matrix maps each input to the channels of patch × patch pixels, which do not
    overlap with its neighbours' at a stride of `patch`; convolutions with 2×2 orthogonal blocks
    spread these over the kernel. With more inputs than places in a patch, it is the adjoint of
    one that preserves norms.
    """
    mix = orthogonal_matrix(out_channels * patch**2, in_channels, generator)
    kernel = mix.view(patch, patch, out_channels, in_channels)
    for _ in range(size - patch):
        kernel = convolve(orthogonal_block(out_channels, generator), kernel)
    return kernel.permute(3, 2, 0, 1)  # (size, size, out, in) -> (in, out, size, size)


def delta_kernel(
    out_channels: int, in_channels: int, size: int, generator: torch.Generator
) -> Tensor:
    """Draw a kernel (out, in, size, size): an orthogonal matrix at its centre, else zero."""
    kernel = torch.zeros(out_channels, in_channels, size, size, dtype=torch.float64)
    kernel[:, :, size // 2, size // 2] = orthogonal_matrix(out_channels, in_channels, generator)
    return kernel


def orthogonal_block(width: int, generator: torch.Generator) -> Tensor:
    """Draw a (2, 2, width, width) kernel that preserves norms: two random projections.

    With projections P, Q: [[PQ, P(1−Q)], [(1−P)Q, (1−P)(1−Q)]].
    """
    identity = torch.eye(width, dtype=torch.float64)
    p, q = symmetric_projection(width, generator), symmetric_projection(width, generator)
    rows = [torch.stack([a @ q, a @ (identity - q)]) for a in (p, identity - p)]
    return torch.stack(rows)


def symmetric_projection(width: int, generator: torch.Generator) -> Tensor:
    """Draw a (width, width) orthogonal projection onto a random subspace of random size."""
    basis = orthogonal_matrix(width, width, generator)
    chosen = (torch.rand(width, generator=generator) < 0.5).double()
    return (basis * chosen) @ basis.T


def convolve(left: Tensor, right: Tensor) -> Tensor:
    """Convolve two kernels of matrices, (a, a, l, m) and (b, b, m, n) to (a+b−1, a+b−1, l, n)."""
    size = len(left) + len(right) - 1
    result = left.new_zeros(size, size, left.shape[2], right.shape[3])
    for row in range(len(right)):
        for column in range(len(right)):
            result[row : row + len(left), column : column + len(left)] += left @ right[row, column]
    return result
