"""Small networks of every idiom of the field, and masks of their channels."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    "sigmoid gate": (lambda: Gated(nn.Sigmoid()), (3, 8, 8), []),
    "hard gate": (partial(Gated, F.hardsigmoid), (3, 8, 8), []),
    "shuffle": (Shuffled, (3, 6, 6), []),
    "group norm": (lambda: Normed(nn.GroupNorm(2, 8)), (3, 8, 8), ["norms.0 (GroupNorm)"]),
    "instance norm": (
        lambda: Normed(nn.InstanceNorm2d(8)),
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
"""Networks, shapes of their images, and the calls in them around which channels stay."""
