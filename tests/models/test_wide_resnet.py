"""WRN-depth-k: its published sizes, and its function written out by hand."""

from typing import Any

import golden
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.models.resnet import resnet, wide_resnet
from sculpt.pruning.masks import count_parameters


def meta_wide_resnet(**options: Any) -> nn.Module:
    """Build the structure alone."""
    with torch.device("meta"):
        return wide_resnet(3, 10, **options)


@pytest.mark.parametrize(("shape", "expected"), golden.WIDE_RESNET_TOTAL.items())
def test_the_published_sizes(shape, expected):
    depth, widening = shape
    model = meta_wide_resnet(depth=depth, widening=widening, conv_bias=False)
    assert count_parameters(model, "total") == expected
    if shape == (16, 8):
        model = meta_wide_resnet(depth=depth, widening=widening)
        assert count_parameters(model, "paper") == golden.WIDE_RESNET_16_8_PAPER


@pytest.mark.parametrize(("depth", "blocks"), [(10, 1), (16, 2), (28, 4)])
def test_it_is_the_resnet_of_version_2_with_projections(depth, blocks):
    """6n convolutions in blocks, the stem, and in the papers' counting three projections."""
    options = {"stem_width": 4, "stem_stride": 2, "activation": "tanh", "conv_bias": False}
    with torch.device("meta"):
        for given in ({}, options):
            given = {"widening": 1.5} | given
            other = resnet(3, 10, version="v2", shortcut="projection", blocks=blocks, **given)
            assert str(meta_wide_resnet(depth=depth, **given)) == str(other)


@pytest.mark.parametrize(
    ("depth", "near"),
    [(17, "16 or 22"), (15, "10 or 16"), (27, "22 or 28"), (4, "10"), (9, "10"), (-2, "10")],
)
def test_another_depth_is_refused_and_its_neighbours_are_named(depth, near):
    with pytest.raises(InputError, match=rf"6n \+ 4 .* but got {depth}; use {near}$"):
        meta_wide_resnet(depth=depth)


def randomise(model: nn.Module) -> None:
    """Give every parameter and statistic a value that shows where it is used."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(std=0.3)
            if "norm" in name and name.endswith(("weight", "running_var")):
                tensor.abs_().add_(0.5)


def by_hand(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Compute WRN-10-k in inference mode (Zagoruyko and Komodakis 2016, Figure 1a, Table 1)."""

    def norm_relu(x: Tensor, name: str) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in parts)).relu()

    def conv(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.conv2d(
            x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], stride, padding
        )

    x = conv(images, "stem", 1, 1)
    for stage, stride in enumerate([1, 2, 2]):
        block = f"stages.{stage}.0"
        ready = norm_relu(x, f"{block}.first.norm")
        hidden = norm_relu(conv(ready, f"{block}.first", stride, 1), f"{block}.second.norm")
        changes = f"{block}.shortcut.conv.weight" in state
        shortcut = conv(ready, f"{block}.shortcut", stride, 0) if changes else x
        x = conv(hidden, f"{block}.second", 1, 1) + shortcut
    pooled = norm_relu(x, "last_norm").mean((2, 3))
    return pooled @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize("widening", [1, 2])
def test_its_function_by_hand(widening):
    torch.manual_seed(0)
    model = wide_resnet(3, 10, depth=10, widening=widening, stem_width=4).double().eval()
    randomise(model)
    images = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), by_hand(model.state_dict(), images))
    projections = [name for name, _ in model.named_modules() if name.endswith("shortcut.conv")]
    assert len(projections) == (2 if widening == 1 else 3)
