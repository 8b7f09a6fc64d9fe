"""`sculpt.compact` of networks of every idiom: the same function, never larger, nothing unsaid."""

from typing import Any

import pytest
import torch
from idioms import IDIOMS, channel_masks
from networks import random_masks
from torch import Tensor, nn
from torchvision.models import get_model

import sculpt
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import Masks


def trained_like(model: nn.Module, masks: Masks) -> nn.Module:
    """Give a network biases and statistics as training does, and apply the masks."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if value.dim() == 1:
                value.normal_(0, 0.3, generator=generator)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    sculpt.apply_masks(model, masks)
    return model.eval()


def weights(network: nn.Module) -> int:
    """Count all numbers of a network but what counts batches."""
    return sum(v.numel() for v in network.state_dict().values() if v.is_floating_point())


def check(model: nn.Module, masks: Masks, shape: tuple[int, ...]) -> nn.Module:
    """Compact a network, and compare it with the original; return it."""
    images = torch.randn(3, *shape)
    small = sculpt.compact(trained_like(model, masks), masks, images)
    with torch.no_grad():
        expected, found = model(images), small(images)
    pairs = [(expected, found)] if isinstance(found, Tensor) else []
    if isinstance(found, dict):
        assert list(found) == list(expected)
        pairs = [(expected[key], found[key]) for key in found]
    for one, other in pairs:
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-4 * float(one.abs().max())
    assert weights(small) <= weights(model)
    if isinstance(expected, Tensor):
        macs = [measure_cost(network, shape).dense_macs for network in (small, model)]
        assert macs[0] <= macs[1]
    return small


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("idiom", IDIOMS)
def test_it_is_smaller_computes_the_same_and_says_what_stayed_whole(idiom: str, seed: int):
    torch.manual_seed(seed)
    build, shape, whole = IDIOMS[idiom]
    model = build()
    small = check(model, channel_masks(model, 0.5, seed), shape)
    assert small.meta["left_whole"] == whole
    assert weights(small) < 0.95 * weights(model)


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("idiom", IDIOMS)
def test_of_any_masks_none_makes_it_larger(idiom: str, density: float):
    torch.manual_seed(0)
    build, shape, _ = IDIOMS[idiom]
    model = build()
    check(model, random_masks(model, density), shape)


def cut(name: str) -> nn.Module:
    """Build a network of torchvision, without what is only more of the same."""
    more: dict[str, Any] = {"googlenet": {"init_weights": False, "aux_logits": False}}
    more["fcn_resnet50"] = {"weights_backbone": None, "aux_loss": False}
    model = get_model(name, weights=None, **more.get(name, {}))
    match name:
        case "vgg11_bn":
            model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
        case "resnext50_32x4d":
            model.layer4, model.fc = nn.Identity(), nn.Linear(1024, 10)
        case "fcn_resnet50":
            model.backbone.layer3 = nn.Identity()
            model.backbone.layer4 = model.backbone.layer4[:1]
            model.backbone.layer4[0].conv1 = nn.Conv2d(512, 512, 1, bias=False)
            model.backbone.layer4[0].downsample[0] = nn.Conv2d(512, 2048, 1, bias=False)
        case "r3d_18":
            model.layer3, model.layer4, model.fc = nn.Identity(), nn.Identity(), nn.Linear(128, 10)
        case "mobilenet_v2":
            model.features, model.classifier = model.features[:14], nn.Linear(96, 10)
        case "efficientnet_b0":
            model.features, model.classifier = model.features[:6], nn.Linear(112, 10)
        case "convnext_tiny":
            norm = type(model.classifier[0])(192, eps=1e-6)
            model.features = model.features[:4]
            model.classifier = nn.Sequential(norm, nn.Flatten(1), nn.Linear(192, 10))
    return model


# Each stands for what the others do not have: its share of weights that stay, and its norms over
# several channels. Groups stay equal, so that they lose little.
TORCHVISION: dict[str, tuple[float, int]] = {
    "resnet18": (0.6, 0),
    "resnext50_32x4d": (0.95, 0),
    "regnet_x_400mf": (0.95, 0),
    "densenet121": (0.6, 0),
    "googlenet": (0.6, 0),
    "mobilenet_v2": (0.6, 0),
    "mobilenet_v3_small": (0.6, 0),
    "efficientnet_b0": (0.7, 0),
    "shufflenet_v2_x0_5": (0.6, 0),
    "squeezenet1_1": (0.6, 0),
    "mnasnet0_5": (0.6, 0),
    "vgg11_bn": (0.6, 0),
    "convnext_tiny": (0.6, 9),
    "fcn_resnet50": (0.6, 0),
    "r3d_18": (0.6, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision(name: str):
    torch.manual_seed(0)
    share, norms = TORCHVISION[name]
    model = cut(name)
    masks = channel_masks(model, 0.5, seed=1)
    small = check(model, masks, (3, 4, 16, 16) if name == "r3d_18" else (3, 32, 32))
    whole = small.meta["left_whole"]
    assert len(whole) == norms
    assert all(name.endswith(("(LayerNorm)", "(layer_norm)")) for name in whole)
    assert weights(small) < share * weights(model)


def test_an_index_holds_no_channels():
    """As in attention that looks its relative positions up in a table of their own."""

    class Relative(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 10)
            self.table = nn.Parameter(torch.randn(3, 4))
            self.register_buffer("index", torch.tensor([[0, 2], [1, 1]]))

        def forward(self, images):
            looked_up = self.table[self.index.view(-1)].view(2, 2, 4).permute(2, 0, 1)
            return self.head(torch.relu(self.conv(images) + looked_up.contiguous()).mean([2, 3]))

    torch.manual_seed(0)
    images, masks = torch.randn(3, 3, 2, 2), random_masks(Relative(), 0.5)
    model = trained_like(Relative(), masks)
    small = sculpt.compact(model, masks, images)
    torch.testing.assert_close(small(images), model(images))
