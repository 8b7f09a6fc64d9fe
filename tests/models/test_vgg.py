"""VGG16: its size, where its kernels are 1×1, and what its poolings leave."""

from typing import Any

import golden
import pytest
import torch
from torch import nn

from sculpt.errors import InputError
from sculpt.models.vgg import vgg16
from sculpt.pruning.masks import count_parameters, prunable_parameters


def meta_vgg16(channels: int = 3, classes: int = 10, **options: Any) -> nn.Module:
    """Build the structure alone."""
    with torch.device("meta"):
        return vgg16(channels, classes, **options)


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_its_size_is_the_one_by_hand():
    assert count_parameters(meta_vgg16(), "paper") == golden.VGG16_PAPER
    channels = 2 * (2 * 64 + 2 * 128 + 3 * 256 + 8 * 512)  # scale and shift
    assert count_parameters(meta_vgg16(), "total") == golden.VGG16_PAPER + channels


def test_the_third_convolution_of_the_later_groups_is_1x1():
    model = meta_vgg16()
    groups = [[layer.kernel_size[0] for layer in convolutions(group)] for group in model.groups]
    assert groups == [[3, 3], [3, 3], [3, 3, 1], [3, 3, 1], [3, 3, 1]]
    widths = [[layer.out_channels for layer in convolutions(group)] for group in model.groups]
    assert widths == [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]
    assert [layer.out_features for layer in linear_layers(model)] == [512, 512, 10]
    assert linear_layers(model)[0].in_features == 512


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (28, [14, 7, 4, 2, 1]),
        (31, [16, 8, 4, 2, 1]),
        (32, [16, 8, 4, 2, 1]),
        (33, [17, 9, 5, 3, 2]),
        (57, [29, 15, 8, 4, 2]),
        (64, [32, 16, 8, 4, 2]),
    ],
)
def test_each_group_halves_the_image_and_what_is_left_is_averaged(size, sizes):
    model = vgg16(1, 10, widening=1 / 16).eval()
    seen: list[torch.Tensor] = []
    for group in model.groups:
        group.register_forward_hook(lambda *call: seen.append(call[2]))
    logits = model(torch.randn(2, 1, size, size))
    assert [hidden.shape[2:] for hidden in seen] == [(side, side) for side in sizes]
    torch.testing.assert_close(logits, model.classifier(seen[-1].mean((2, 3))))


def test_a_convolution_is_followed_by_norm_and_activation():
    kinds = [type(part) for part in meta_vgg16().groups[2][2]]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_without_batch_norm_the_layers_and_their_names_are_the_same():
    plain = meta_vgg16(batch_norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert list(prunable_parameters(plain)) == list(prunable_parameters(meta_vgg16()))
    assert count_parameters(plain, "total") == golden.VGG16_PAPER


@pytest.mark.parametrize(
    ("widening", "first", "last"), [(2, 128, 1024), (0.3, 19, 154), (1 / 64, 1, 8)]
)
def test_widening_is_of_every_layer_but_the_last(widening, first, last):
    model = meta_vgg16(widening=widening)
    assert convolutions(model)[0].out_channels == first
    assert convolutions(model)[-1].out_channels == last
    assert [layer.in_features for layer in linear_layers(model)] == [last] * 3
    assert [layer.out_features for layer in linear_layers(model)] == [last, last, 10]


@pytest.mark.parametrize("widening", [0, -1, 1 / 65, float("nan")])
def test_a_network_without_units_is_refused(widening):
    with pytest.raises(InputError, match="widening must be at least 1/64"):
        meta_vgg16(widening=widening)
