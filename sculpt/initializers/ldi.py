"""Layerwise dynamical isometry: every layer's Jacobian has singular values near 1.

Lee et al. 2020, §4.2; convolutions after Xiao et al. 2018, Algorithm 2.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.diagnostics.layers import layer_groups
from sculpt.errors import check_choice
from sculpt.initializers.variance_scaling import WeightedLayer
from sculpt.models.activations import Activation
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
        layer: A linear layer, or a convolution of any dimensions, transposed or not.
        kernel: `block`: block convolution-orthogonal; a weight is zero only by chance, in layers of
            very few channels. `delta`: only the kernel's centre is not zero. It is orthogonal too,
            but its zeros score 0 under connection sensitivity, and the ranking runs dry at low
            sparsity (`initialize` warns).
        gain: All singular values; 1 in the paper's code. The name of an activation stands for its
            critical gain (`CRITICAL_GAINS`), for every layer alike: with it, the Jacobian of a
            layer *and* its activation preserves the mean squared norm.

    Raises:
        InputError: `kernel` or `gain` is not one of its values.
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
    square = len(size) == 2 and size[0] == size[1]
    first, second = layer.weight.shape[:2]  # outputs and inputs, or of a transposed one the reverse
    if first == layer.groups and second == 1 and kernel == "block" and not layer.transposed:
        return gain * depthwise_kernels(first, size, generator).float()
    if kernel == "delta":
        build: Callable[[int, int], Tensor] = partial(delta_kernel, size=size, generator=generator)
    elif layer.transposed:
        # A step over several pixels spreads an input over as many, each with weights of its own.
        steps = [min(pair) for pair in zip(layer.stride, size, strict=True)]
        patch = steps if max(layer.dilation) == 1 else [1] * len(size)
        build = partial(spreading_kernel, size=size, generator=generator, patch=patch)
    elif square:
        build = partial(block_kernel, size=size[0], generator=generator)
    else:
        build = partial(long_kernel, size=size, generator=generator)
    # Every group of a grouped convolution is a convolution of its own.
    kernels = [build(first // layer.groups, second) for _ in range(layer.groups)]
    return gain * torch.cat(kernels).float()


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


def long_kernel(
    out_channels: int, in_channels: int, size: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Draw a kernel (out, in, *size) of any shape whose circular convolution preserves norms.

    As `block_kernel`, but with convolutions along one dimension after the other: those of blocks
    [P, 1 − P], with a random projection P, preserve norms, too.
    """
    if in_channels > out_channels:
        adjoint = long_kernel(in_channels, out_channels, size, generator)
        return adjoint.transpose(0, 1).flip(*range(2, adjoint.dim()))
    mix = orthogonal_matrix(out_channels, in_channels, generator)
    kernel = mix[(None,) * len(size)]
    for dimension, length in enumerate(size):
        for _ in range(length - 1):
            kernel = _convolve_along(dimension, kernel, generator)
    return kernel.movedim((-2, -1), (0, 1))


def depthwise_kernels(channels: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw a kernel (channels, 1, *size) for each channel alone: ±1 at one place.

    That is `block_kernel` of one channel, whose projections are 0 or 1, for all of them at once.
    """
    places = [
        torch.stack(
            [(torch.rand(channels, generator=generator) < 0.5) for _ in range(length - 1)]
        ).sum(0)
        if length > 1
        else torch.zeros(channels, dtype=torch.int64)
        for length in size
    ]
    kernel = torch.zeros(channels, *size, dtype=torch.float64)
    signs = torch.where(torch.rand(channels, generator=generator) < 0.5, 1.0, -1.0)
    kernel[(torch.arange(channels), *places)] = signs.double()
    return kernel[:, None]


def spreading_kernel(
    in_channels: int,
    out_channels: int,
    size: Sequence[int],
    generator: torch.Generator,
    *,
    patch: Sequence[int],
) -> Tensor:
    """Draw a kernel (in, out, *size) of a transposed convolution that preserves norms.

    An orthogonal matrix maps each input to the channels of a patch, which does not overlap with its
    neighbours' at steps of that size; convolutions along each dimension, as in `long_kernel`,
    spread it over the kernel. With more inputs than places in a patch, it is the adjoint of one
    that preserves norms.
    """
    mix = orthogonal_matrix(out_channels * math.prod(patch), in_channels, generator)
    kernel = mix.view(*patch, out_channels, in_channels)
    for dimension, (length, own) in enumerate(zip(size, patch, strict=True)):
        for _ in range(length - own):
            kernel = _convolve_along(dimension, kernel, generator)
    return kernel.movedim((-1, -2), (0, 1))


def _convolve_along(dimension: int, kernel: Tensor, generator: torch.Generator) -> Tensor:
    """Make a kernel of matrices, (*size, out, in), longer by one along a dimension."""
    width = kernel.shape[-2]
    projection = symmetric_projection(width, generator)
    first = projection @ kernel
    shape = list(kernel.shape)
    shape[dimension] = 1
    blank = kernel.new_zeros(shape)
    return torch.cat([first, blank], dimension) + torch.cat([blank, kernel - first], dimension)


def delta_kernel(
    out_channels: int, in_channels: int, size: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Draw a kernel (out, in, *size): an orthogonal matrix at its centre, else zero."""
    kernel = torch.zeros(out_channels, in_channels, *size, dtype=torch.float64)
    centre = kernel
    for length in size:
        centre = centre.select(2, length // 2)
    centre.copy_(orthogonal_matrix(out_channels, in_channels, generator))
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
