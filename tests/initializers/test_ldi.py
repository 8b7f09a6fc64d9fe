"""Dynamical isometry in closed form, in float64: singular values, norms and adjoints."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

import sculpt
from sculpt.errors import InputError
from sculpt.initializers import ldi as ldi_module
from sculpt.initializers.ldi import block_kernel, ldi, orthogonal_matrix
from sculpt.models.activations import Activation
from sculpt.registry import options_schema

SIZES = [1, 2, 3, 5]
PRECISE = {"rtol": 1e-11, "atol": 1e-11}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circular(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve (as torch does) with circular padding; the size stays."""
    size = kernel.shape[-1]
    before = size // 2
    padded = F.pad(images, (before, size - 1 - before) * 2, mode="circular")
    return F.conv2d(padded, kernel)


def delta_kernel(out_channels, in_channels, size, generator):
    return ldi_module.delta_kernel(out_channels, in_channels, (size, size), generator)


def singular_values(kernel: Tensor, height: int = 6, width: int = 7) -> Tensor:
    """Return those of the circular convolution: of its matrix at each frequency."""
    spectrum = torch.fft.fft2(kernel, s=(height, width)).permute(2, 3, 0, 1)
    return torch.linalg.svdvals(spectrum)


def norms(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1)


@pytest.mark.parametrize("build", [block_kernel, delta_kernel])
@pytest.mark.parametrize("size", SIZES)
def test_an_image_keeps_its_norm_and_the_adjoint_is_the_way_back(build, size):
    """As torch convolves, which the singular values below are not computed with."""
    kernel = build(3, 8, size, generator())
    outputs = torch.randn(5, 3, 9, 6, dtype=torch.float64)
    inputs = torch.randn(5, 8, 9, 6, dtype=torch.float64, requires_grad=True)
    (back,) = torch.autograd.grad(circular(inputs, kernel), inputs, outputs)
    torch.testing.assert_close(norms(back), norms(outputs), **PRECISE)
    torch.testing.assert_close(circular(back, kernel), outputs, **PRECISE)
    if (
        build is block_kernel and size % 2
    ):  # the kernel into more channels from the same draws is the adjoint
        widening = build(8, 3, size, generator())
        torch.testing.assert_close(circular(outputs, widening), back, **PRECISE)


@pytest.mark.parametrize("build", [block_kernel, delta_kernel])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 1), (3, 8), (6, 6), (8, 3), (5, 1)])
def test_all_singular_values_are_1(build, size, in_channels, out_channels):
    kernel = build(out_channels, in_channels, size, generator())
    values = singular_values(kernel)
    assert kernel.shape == (out_channels, in_channels, size, size)
    assert values.shape == (6, 7, min(in_channels, out_channels))
    torch.testing.assert_close(values, torch.ones_like(values), **PRECISE)


@pytest.mark.parametrize("build", [block_kernel, delta_kernel])
def test_the_check_would_notice_a_merely_orthogonal_matrix(build):
    """`nn.init.orthogonal_` flattens the kernel; METHOD §4 says that this is not enough."""
    flattened = orthogonal_matrix(4, 4 * 9, generator()).view(4, 4, 3, 3)
    assert (singular_values(build(4, 4, 3, generator())) - 1).abs().max() < 1e-11
    assert (singular_values(flattened) - 1).abs().max() > 0.1


@pytest.mark.parametrize(("in_channels", "out_channels"), [(16, 16), (3, 16), (16, 3)])
def test_the_block_kernel_has_no_zeros_and_the_delta_kernel_eight_ninths(in_channels, out_channels):
    layer = nn.Conv2d(in_channels, out_channels, 3)
    assert torch.count_nonzero(ldi(layer, generator())) == layer.weight.numel()
    assert (block_kernel(16, 16, 3, generator()).square().sum((0, 1)) > 0.01).all()
    weight = ldi(layer, generator(), kernel="delta")
    assert torch.count_nonzero(weight) * 9 == weight.numel()
    assert torch.count_nonzero(weight[:, :, 1, 1]) == in_channels * out_channels


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(3, 8, 5),
        nn.Conv1d(8, 3, 2),
        nn.Conv3d(4, 6, (3, 2, 1)),
        nn.Conv3d(6, 6, 3),
        nn.Conv2d(5, 7, (1, 7)),
        nn.Conv2d(12, 8, (3, 2), groups=4),
        nn.Conv1d(9, 9, 3, groups=9),
        nn.Conv2d(6, 6, (3, 5), groups=6),
        nn.Conv3d(4, 4, 3, groups=4),
        nn.ConvTranspose1d(8, 3, 4),
        nn.ConvTranspose3d(4, 6, (2, 3, 1)),
        nn.ConvTranspose1d(4, 4, 4, groups=2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kernel", ["block", "delta"])
def test_kernels_of_every_shape_preserve_norms(layer, kernel):
    weight = ldi(layer, generator(), kernel=kernel).double()
    assert weight.shape == layer.weight.shape
    dimensions = tuple(range(2, weight.dim()))
    for own in weight.chunk(layer.groups):  # at each frequency of a circular convolution
        spectrum = torch.fft.fftn(own, s=[7] * len(dimensions), dim=dimensions)
        values = torch.linalg.svdvals(spectrum.movedim((0, 1), (-2, -1)))
        torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-5)
    spread = layer.out_channels if layer.transposed else max(own.shape[:2])
    if kernel == "block" and spread > 4:  # narrower ones have zeros by chance
        assert torch.count_nonzero(weight) == weight.numel()


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose1d(6, 4, 4, stride=2), nn.ConvTranspose3d(3, 4, (2, 3, 2), stride=2)]
)
def test_a_transposed_convolution_with_steps_preserves_norms(layer):
    layer.bias = None
    layer.double().weight.data = ldi(layer, generator()).double()
    inputs = torch.randn(3, layer.in_channels, *[5] * (layer.weight.dim() - 2)).double()
    outputs = layer.double()(inputs)
    torch.testing.assert_close(norms(outputs), norms(inputs), rtol=1e-5, atol=0)


def test_every_channel_of_a_depthwise_kernel_draws_its_place():
    """As `block_kernel` draws that of one channel: binomial along each side, with either sign."""
    weight = ldi(nn.Conv2d(4000, 4000, 3, groups=4000), generator())
    shares = (weight != 0).double().mean((0, 1))
    binomial = torch.tensor([1, 2, 1], dtype=torch.float64) / 4
    torch.testing.assert_close(shares, binomial[:, None] * binomial, rtol=0, atol=0.03)
    assert abs(float(weight.sum())) < 4 * 4000**0.5
    assert (weight.abs().sum((1, 2, 3)) == 1).all()


def test_attentions_projections_are_three_matrices():
    attention = nn.MultiheadAttention(12, 3)
    sculpt.initialize(attention, "ldi", seed=0)
    for matrix in attention.in_proj_weight.chunk(3):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(12), rtol=0, atol=1e-5)
    apart = nn.MultiheadAttention(12, 3, kdim=8, vdim=16)
    sculpt.initialize(apart, "variance_scaling", seed=0, variant="he")
    assert float(apart.v_proj_weight.detach().var()) == pytest.approx(2 / 16, rel=0.3)


@pytest.mark.parametrize(("inputs", "outputs"), [(7, 12), (12, 7), (9, 9), (1, 5)])
def test_a_linear_weight_is_orthonormal_along_its_shorter_side(inputs, outputs):
    layer = nn.Linear(inputs, outputs)
    weight = ldi(layer, generator())
    assert weight.shape == (outputs, inputs)
    small = weight @ weight.T if outputs <= inputs else weight.T @ weight
    torch.testing.assert_close(small, torch.eye(min(inputs, outputs)), rtol=0, atol=1e-6)
    exact = orthogonal_matrix(outputs, inputs, generator())
    assert torch.equal(weight, exact.float())
    values = torch.linalg.svdvals(exact)
    torch.testing.assert_close(values, torch.ones_like(values), **PRECISE)


def test_signs_are_corrected():
    """Uncorrected, QR favours one sign on the diagonal; Haar means 0 (here with sd 0.0125)."""
    stream = generator()
    diagonal = torch.cat([orthogonal_matrix(4, 4, stream).diagonal() for _ in range(400)])
    assert abs(diagonal.mean()) < 0.07


@pytest.mark.parametrize(
    ("given", "gain"),
    [
        (0.5, 0.5),
        (1.5, 1.5),
        ("linear", 1),
        ("tanh", 1),
        ("relu", 2**0.5),
        ("leaky_relu", (2 / 1.0001) ** 0.5),
        ("selu", 0.9660257770),
    ],
)
@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 4), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)], ids=str
)
def test_the_gain_is_all_singular_values(layer, given, gain):
    """An activation stands for its critical gain."""
    assert set(get_args(Activation)) == {"linear", "tanh", "relu", "leaky_relu", "selu"}
    scaled = ldi(layer, generator(), gain=given)
    torch.testing.assert_close(scaled, gain * ldi(layer, generator()), rtol=1e-6, atol=0)
    matrix = scaled.double()
    values = torch.linalg.svdvals(matrix) if matrix.dim() == 2 else singular_values(matrix)
    torch.testing.assert_close(values, torch.full_like(values, gain), rtol=1e-6, atol=0)


def test_a_study_file_may_give_a_number_or_an_activation_as_gain():
    schema = options_schema(ldi)
    for gain in (2, 0.5, "relu"):
        assert schema.model_validate({"gain": gain}).model_dump()["gain"] == gain
    for gain in ("gelu", "2", True, None):
        with pytest.raises(ValidationError):
            schema.model_validate({"gain": gain})


@pytest.mark.parametrize("kernel", ["block", "delta"])
def test_each_group_of_a_grouped_convolution_is_orthogonal(kernel):
    layer = nn.Conv2d(6, 9, 3, groups=3)
    groups = ldi(layer, generator(), kernel=kernel).double().chunk(3)
    for group in groups:
        values = singular_values(group)
        torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-6, atol=0)
    assert not torch.equal(groups[0], groups[1])


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [("kernel", "dirac", "block, delta"), ("gain", "gelu", "linear, .*")],
)
def test_an_unknown_word_is_refused(option, value, known):
    with pytest.raises(InputError, match=rf"{option} must be one of {known}, but got '{value}'"):
        ldi(nn.Conv2d(2, 2, 3), generator(), **{option: value})
