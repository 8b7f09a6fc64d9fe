"""`sculpt.compact` of networks of every idiom: the same function, never larger, nothing unsaid."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import random_masks
from torch import Tensor, nn
from torchvision.models import get_model

import sculpt
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import Masks, by_output, from_outputs, weighted_layers
from sculpt.pruning.masks import dense_masks


def channel_masks(model: nn.Module, density: float, seed: int = 0) -> Masks:
    """Keep about this share of each layer's outputs, one at least, and all of the last layer's."""
    generator = torch.Generator().manual_seed(seed)
    masks, layers = dense_masks(model), weighted_layers(model)
    for name in list(layers)[:-1]:
        rows = by_output(layers[name], masks[name])
        there = torch.rand(len(rows), generator=generator) < density
        there[0] = True
        rows = rows & there.view(-1, 1, 1)
        masks[name] = from_outputs(layers[name], rows).clone()
        bias = name.removesuffix("weight") + "bias"
        if bias in masks and seed % 2:
            masks[bias] = there  # else what is left of a row is a constant
    return masks


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


def conv(before: int, after: int, kernel: int = 3, **options: int) -> nn.Sequential:
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Dense(nn.Module):
    """DenseNet's concatenations, with norms behind them, and GoogLeNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (8, 12))
        self.convs = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in (8, 12))
        self.branches = nn.ModuleList([conv(16, 6, 1), conv(16, 6), conv(16, 4)])
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, layer in zip(self.norms, self.convs, strict=True):
            features.append(layer(F.relu(norm(torch.cat(features, 1)))))
        x = torch.cat(features, dim=1)
        one, two, three = self.branches
        x = torch.cat([one(x), F.silu(two(x)), three(F.max_pool2d(x, 3, 1, 1))], 1)
        return self.last(F.adaptive_avg_pool2d(x, (1, 1)).squeeze(3).squeeze(2))


class UNet(nn.Module):
    """A U-Net, with transposed convolutions and interpolation; it gives an image."""

    def __init__(self, sizes: bool = False) -> None:
        super().__init__()
        self.down, self.below, self.bottom = conv(3, 8), conv(8, 12, stride=2), conv(12, 12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.again = nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1, groups=4)
        self.joined = conv(24, 8)
        self.last = nn.Conv2d(8, 4, 1)
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        size = x.shape[-2:]
        skip = self.down(x)
        low = self.bottom(self.below(skip))
        x = torch.cat([skip, self.up(low), F.elu(self.again(low))], 1)
        x = self.last(self.joined(x))
        if not self.sizes:
            return x
        finer = F.interpolate(low, size=size, mode="bilinear", align_corners=False)
        return {"out": x, "finer": finer}


class Gated(nn.Module):
    """Squeeze-and-excitation, as MobileNetV3 and EfficientNet have it, and attention to pixels."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.gate, self.act = conv(3, 12), gate, nn.Hardswish()
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.excite = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 12, 1)
        self.project = nn.Conv2d(12, 12, 1)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.act(self.depthwise(x))
        y = self.gate(self.excite(F.gelu(self.squeeze(self.pool(y))))) * y
        x = x + self.project(y)
        return self.last(x.mean([2, 3]))


class Shuffled(nn.Module):
    """ShuffleNet's halves and shuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.whole = conv(3, 12), conv(6, 6), conv(12, 12)
        self.last = nn.Linear(12 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        one, two = x.chunk(2, dim=1)
        x = torch.cat((one, self.branch(two)), dim=1)
        count, channels, height, width = x.size()
        x = x.view(count, 2, channels // 2, height, width)
        x = torch.transpose(x, 1, 2).contiguous().view(count, -1, height, width)
        left, right = torch.split(self.whole(x), [4, 8], dim=1)
        x = torch.cat([right.mul(2.0), left[:, [2, 0]], left[:, 1:3].sigmoid()], 1)
        return self.last(x.reshape(x.shape[0], -1))


class Normed(nn.Module):
    """Norms over channels, between layers that lose some."""

    def __init__(self, *norms: nn.Module) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 10, 3)
        self.norms = nn.Sequential(*norms)
        self.last = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.three(F.softsign(self.norms(self.two(self.one(x))))))
        return self.last(torch.flatten(x.mean(-1, keepdim=True).mean(-2), 1))


class Tokens(nn.Module):
    """Linear layers on (N, T, C): blocks as a mixer and ConvNeXt have them."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()
        self.wide, self.narrow = nn.Linear(8, 24), nn.Linear(24, 8)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.last = nn.Sequential(nn.Linear(8, 12), nn.Mish(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        y = self.norm(x.permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y)))
        x = x + self.scale * torch.permute(y, [0, 3, 1, 2])
        x = x.flatten(2).transpose(1, 2)  # (N, T, C)
        return self.last(F.relu(x))


class Sounds(nn.Module):
    """Images of one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv1d(2, 8, 5, stride=2, padding=2), nn.BatchNorm1d(8)
        self.two = nn.Conv1d(8, 8, 3, padding="same", dilation=1)
        self.three = nn.Conv1d(8, 8, 3, dilation=2)
        self.up = nn.ConvTranspose1d(8, 6, 4, stride=2, bias=False)
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.leaky_relu(self.norm(self.one(x))), 2)
        x = F.avg_pool1d(F.sigmoid(self.three(x)), 3, padding=1)  # a constant no longer is one
        return self.last(F.relu(self.up(x)).amax(dim=2))


class Films(nn.Module):
    """Images of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv3d(2, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8)
        self.two = nn.Conv3d(8, 8, (1, 3, 3), groups=2)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(F.avg_pool3d(F.relu(self.norm(self.one(x))), 2))
        return self.last(F.adaptive_avg_pool3d(x, 1).flatten(1))


class Foreign(nn.Module):
    """A sine, a product of channels with each other, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.twice = conv(3, 8), conv(8, 8), nn.Conv2d(8, 8, 1)
        self.three = nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(torch.sin(self.two(self.one(x)))))
        x = x * torch.softmax(self.three(x), 1)
        return self.last(F.normalize(x.mean((2, 3))))


IDIOMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "dense": (Dense, (3, 8, 8), []),
    "unet": (UNet, (3, 8, 8), []),
    "unet of sizes": (partial(UNet, True), (3, 8, 8), []),
    "sigmoid gate": (partial(Gated, nn.Sigmoid()), (3, 8, 8), []),
    "hard gate": (partial(Gated, F.hardsigmoid), (3, 8, 8), []),
    "shuffle": (Shuffled, (3, 6, 6), []),
    "group norm": (partial(Normed, nn.GroupNorm(2, 8)), (3, 8, 8), ["norms.0 (GroupNorm)"]),
    "instance norm": (
        partial(Normed, nn.InstanceNorm2d(8)),
        (3, 8, 8),
        ["norms.0 (InstanceNorm2d)"],
    ),
    "tokens": (partial(Tokens, False), (3, 8, 8), []),
    "normed tokens": (partial(Tokens, True), (3, 8, 8), ["norm (LayerNorm)"]),
    "sounds": (Sounds, (2, 40), []),
    "films": (Films, (2, 4, 8, 8), []),
    "foreign": (
        Foreign,
        (3, 6, 6),
        [
            "sin (sin)",
            "twice (Conv2d)",
            "twice (Conv2d)",
            "softmax (softmax)",
            "normalize (normalize)",
        ],
    ),
}


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
