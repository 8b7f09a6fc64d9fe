"""Jacobian singular values against explicit products, finite differences and the paper."""

import itertools
import math

import numpy as np
import pytest
import torch
from networks import appearance
from torch import Tensor, nn

from sculpt.diagnostics import propagation
from sculpt.diagnostics.propagation import (
    JacobianSpectrum,
    jacobian_singular_values,
    summarize_jacobian,
)
from sculpt.errors import InputError, NumericsError
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def tanh_mlp(*widths: int, variance: float = 0.3) -> nn.Sequential:
    """Build a float64 MLP with tanh between its layers, weights and biases from N(0, variance)."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    model = nn.Sequential(*layers[:-1]).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = math.sqrt(variance) * randn(*parameter.shape, seed=seed)
    return model


def by_products(model: nn.Sequential, image: Tensor) -> Tensor:
    """Return the Jacobian of a tanh MLP as the product of its D^l W^l (Lee et al. 2020, §4.1)."""
    jacobian, hidden = torch.eye(len(image), dtype=image.dtype), image
    for layer in model:
        if isinstance(layer, nn.Linear):
            hidden = layer.weight @ hidden + layer.bias
            jacobian = layer.weight @ jacobian
        else:
            hidden = hidden.tanh()
            jacobian = torch.diag(1 - hidden**2) @ jacobian
    return jacobian.detach()


class TestNetworkJacobian:
    @pytest.mark.parametrize("widths", [(12, 9, 8, 5), (4, 9, 8, 7)], ids=["wide", "narrow"])
    def test_a_small_mlp_is_the_product_of_its_layers(self, widths):
        model, images = tanh_mlp(*widths), randn(6, widths[0])
        values = jacobian_singular_values(model, images)
        expected = [torch.linalg.svdvals(by_products(model, image)) for image in images]
        assert values.shape == (6, min(widths[0], widths[-1]))
        torch.testing.assert_close(values, torch.stack(expected), rtol=1e-11, atol=0)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_a_convnet_against_finite_differences(self, channels):
        model = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Softplus(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 5),
        ).double()
        initialize(model, "ldi", seed=0)
        model[1].running_mean.copy_(randn(4))
        model[1].running_var.copy_(1 + randn(4) ** 2)
        images = randn(3, channels, 6, 6)
        values = jacobian_singular_values(model, images)
        model.eval()
        for image, of_image in zip(images, values, strict=True):
            steps = 1e-5 * torch.eye(image.numel(), dtype=torch.float64).view(-1, *image.shape)
            with torch.no_grad():
                jacobian = (model(image + steps) - model(image - steps)).T / 2e-5
            expected = np.linalg.svd(jacobian.numpy(), compute_uv=False)
            np.testing.assert_allclose(of_image.numpy(), expected, rtol=1e-7)

    def test_small_values_keep_their_digits(self):
        """A condition of 1e12, which the eigenvalues of J Jᵀ cannot show."""
        model = nn.Linear(8, 3, bias=False).double()
        exact = torch.tensor([1e4, 1.0, 1e-8], dtype=torch.float64)
        left, right = torch.linalg.qr(randn(3, 3))[0], torch.linalg.qr(randn(8, 3))[0]
        model.weight.data = left @ torch.diag(exact) @ right.T
        values = jacobian_singular_values(model, randn(2, 8))
        torch.testing.assert_close(values, exact.expand(2, 3), rtol=1e-3, atol=0)
        assert summarize_jacobian(values).condition == pytest.approx(1e12, rel=1e-3)

    def test_what_is_0_is_0_and_not_a_rounding_error(self):
        model, images = nn.Sequential(nn.Linear(9, 2), nn.Linear(2, 5)), torch.randn(4, 9)
        values = jacobian_singular_values(model, images)
        rough = jacobian_singular_values(model, images, dtype=torch.float32)
        assert values.dtype == rough.dtype == torch.float64
        assert (values[:, :2] > 0).all()
        assert not values[:, 2:].any()
        assert summarize_jacobian(values).condition is None
        torch.testing.assert_close(rough, values, rtol=1e-4, atol=0)
        model[0].weight.data.zero_()
        assert not jacobian_singular_values(model, images).any()

    def test_precision_and_chunks_do_not_matter(self, monkeypatch):
        model = resnet(3, 10, blocks=1, stem_width=4)
        images = torch.randn(5, 3, 8, 8)
        expected = jacobian_singular_values(model, images)
        assert expected.dtype == torch.float64
        for at_once in (1, 2, 5):
            monkeypatch.setattr(propagation, "IMAGES_AT_ONCE", at_once)
            values = jacobian_singular_values(model, images)
            torch.testing.assert_close(values, expected, rtol=1e-10, atol=0)
        values = jacobian_singular_values(model.double(), images.double())
        torch.testing.assert_close(values, expected, rtol=1e-10, atol=0)

    def test_large_networks_take_half_the_precision_where_that_suffices(self, monkeypatch):
        model, images = resnet(3, 10, blocks=1, stem_width=4), torch.randn(2, 3, 8, 8)
        exact = jacobian_singular_values(model, images)
        single = jacobian_singular_values(model, images, dtype=torch.float32)
        monkeypatch.setattr(propagation, "LARGE", 0)
        assert torch.equal(jacobian_singular_values(model, images), single)
        assert not torch.equal(single, exact)
        with torch.no_grad():  # as good as collapsed: the smallest value is rounding in float32
            model.get_submodule("classifier").weight[0] = model.get_submodule("classifier").weight[
                1
            ]
        exact = jacobian_singular_values(model, images, dtype=torch.float64)
        assert torch.equal(jacobian_singular_values(model, images), exact)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
    def test_the_model_is_only_read(self, mode):
        model = resnet(1, 10, blocks=1, stem_width=4).train()
        images = torch.randn(3, 1, 8, 8)
        before, kept = appearance(model), images.clone()
        with mode():
            jacobian_singular_values(model, images)
        assert appearance(model) == before
        assert torch.equal(images, kept)
        assert not images.requires_grad

    def test_no_images(self):
        with pytest.raises(InputError, match="there must be images"):
            jacobian_singular_values(nn.Linear(3, 2), torch.zeros(0, 3))

    def test_a_derivative_that_is_no_number(self):
        model = nn.Linear(3, 2)
        model.weight.data[0, 0] = math.nan
        with pytest.raises(NumericsError, match="must be finite"):
            jacobian_singular_values(model, torch.randn(2, 3))

    def test_a_chunk_is_bounded(self, monkeypatch):
        sizes = []

        class Watch(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                functional = torch._C._functorch
                inner = images
                while functional.is_functorch_wrapped_tensor(inner):
                    inner = functional.get_unwrapped(inner)
                sizes.append(inner.numel() // 16)
                return images

        model = nn.Sequential(Watch(), nn.Linear(16, 4))
        # Of each image 16 + 4 activations and 4·16 derivatives: 84 numbers.
        monkeypatch.setattr(propagation, "ELEMENTS_AT_ONCE", 3 * 84 + 83)
        values = jacobian_singular_values(model, randn(8, 16))
        assert values.shape == (8, 4)
        assert max(sizes) == 3
        sizes.clear()
        monkeypatch.setattr(propagation, "ELEMENTS_AT_ONCE", 1)
        assert jacobian_singular_values(model, randn(3, 16)).shape == (3, 4)
        assert max(sizes) == 1


class TestSummary:
    def test_the_pool(self):
        assert summarize_jacobian(torch.tensor([[2.0]])) == JacobianSpectrum(2, 0, 2, 2, 1, 1)
        values = torch.tensor([[4.0, 2.0], [1.0, 0.5], [3.0, 1.5]])
        assert summarize_jacobian(values) == JacobianSpectrum(
            mean=2.0,
            std=pytest.approx(np.std([4, 2, 1, 0.5, 3, 1.5])),
            min=0.5,
            max=4.0,
            condition=8.0,
            images=3,
        )

    @pytest.mark.parametrize("smallest", [0.0, 1e-320])
    def test_a_condition_that_is_no_number(self, smallest):
        values = torch.tensor([[1e10, smallest]], dtype=torch.float64)
        assert summarize_jacobian(values).condition is None

    def test_no_values(self):
        with pytest.raises(InputError, match="must be singular values"):
            summarize_jacobian(torch.zeros(0, 10))


def test_proposition_1():
    """Gradients in terms of Jacobians, gradᵀ = e J^{l,K} D^l ⊗ x^{l−1} (Lee et al. 2020)."""
    model, image = tanh_mlp(6, 5, 7, 4), randn(6)
    target = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    logits = model(image)
    (-(target * logits.log_softmax(0)).sum()).backward()
    error = (logits.softmax(0) - target).detach()  # ∂L/∂logits
    before = [image]  # x^{l−1} of each layer
    slopes = []  # D^l
    for index in (0, 2, 4):
        output = model[index](before[-1]).detach()
        slopes.append(torch.diag(1 - output.tanh() ** 2) if index < 4 else torch.eye(4).double())
        before.append(output.tanh())
    for number, index in enumerate((0, 2, 4)):
        rest = nn.Sequential(*model[index + 2 :])  # from x^l to the logits
        jacobian = by_products(rest, before[number + 1]) if len(rest) else torch.eye(4).double()
        gradient = torch.outer(error @ jacobian @ slopes[number], before[number])
        torch.testing.assert_close(model[index].weight.grad, gradient, rtol=1e-10, atol=1e-14)


def test_the_papers_mlp_on_mnist(mnist_root):
    """Table 1: 7 layers of tanh, SG(γ=0.1), mean 23.0; n 10 seeds times 200 images."""
    packed = mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    pixels = np.frombuffer(packed.read_bytes(), np.uint8, offset=16).reshape(-1, 784)
    images = torch.from_numpy(pixels[::300].astype(np.float64) / 255)
    images = (images - images.mean()) / images.std(correction=0)
    means = []
    for seed in range(10):
        torch.manual_seed(seed)
        model = tanh_mlp(784, *6 * [100], 10)
        for layer in model[::2]:
            nn.init.normal_(layer.weight, 0, math.sqrt(0.1))
            nn.init.zeros_(layer.bias)
        means.append(summarize_jacobian(jacobian_singular_values(model, images)).mean)
    assert np.mean(means) == pytest.approx(23.0, rel=0.05)
