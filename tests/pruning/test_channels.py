"""Whole channels: what masks keep is what `sculpt.compact` stores."""

import re
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from any_networks import LanguageModel
from idioms import IDIOMS
from networks import count, normal, small_resnet
from torch import nn
from torchvision import models
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import sculpt
from sculpt.diagnostics.layers import Layer, by_output, weighted_layers
from sculpt.errors import BudgetError, DryRankingError, SculptWarning
from sculpt.pruning.channel_units import find_channel_units
from sculpt.pruning.mask_rule import MaskRule, select_masks
from sculpt.pruning.masks import count_parameters, prunable_parameters

CHANNELS = MaskRule(granularity="channel")


def narrow(block, **options):
    """torchvision's ResNet of five blocks, an eighth as wide."""
    return eighth(ResNet(block, [2, 1, 1, 1], num_classes=10, **options))


def eighth(model):
    """Divide all widths but those of images, classes and groups by eight."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.in_channels //= 8 if module.in_channels > 3 else 1
            module.out_channels //= 8
            shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
            module.weight = nn.Parameter(torch.randn(shape))
        elif isinstance(module, nn.BatchNorm2d):
            module.__init__(module.num_features // 8)
        elif isinstance(module, nn.Linear):
            module.__init__(module.in_features // 8, module.out_features)
    return model


NETWORKS = {
    "own": (partial(small_resnet, widening=2), (1, 8, 8)),
    "own, version 2": (partial(small_resnet, widening=2, version="v2"), (1, 8, 8)),
    "own, projection": (partial(small_resnet, widening=2, shortcut="projection"), (1, 8, 8)),
    "resnet18": (partial(narrow, BasicBlock), (3, 32, 32)),
    "resnet50": (partial(narrow, Bottleneck), (3, 32, 32)),
    "resnext": (partial(narrow, Bottleneck, groups=2), (3, 32, 32)),
    "mobilenet_v2": (partial(models.MobileNetV2, 10, width_mult=0.25), (3, 32, 32)),
    "mobilenet_v3": (partial(models.mobilenet_v3_small, num_classes=10), (3, 32, 32)),
    "densenet": (partial(DenseNet, 6, (2, 2), 8, num_classes=10), (3, 32, 32)),
    "shufflenet": (partial(models.shufflenet_v2_x0_5, num_classes=10), (3, 32, 32)),
    "dropout": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(12, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 3)
        ),
        (3, 2, 2),
    ),
}
DEEP = {"mobilenet_v2", "mobilenet_v3", "shufflenet"}


def scores_of(model):
    """Draw scores above zero for all weights and biases."""
    stream = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(parameter.shape, generator=stream) + 0.01
        for name, parameter in prunable_parameters(model).items()
    }


def stored(model, masks, shape):
    """Count the weights of the compact network's layers; its biases may be those of norms."""
    sculpt.apply_masks(model, masks)
    small = sculpt.compact(model, masks, torch.randn(2, *shape))
    assert small.meta["left_whole"] == []
    return sum(m.weight.numel() for m in small.modules() if isinstance(m, Layer))


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in DEEP else []) for name in NETWORKS],
)
def test_compact_leaves_what_the_budget_says(name, share):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = normal(build(), 0.1).eval()
    budget = round(share * count_parameters(model, "paper"))
    masks = select_masks(model, scores_of(model), budget, CHANNELS, shape)
    assert 0.8 * budget < count(masks) <= budget
    assert stored(model, masks, shape) == sum(int(m.sum()) for m in masks.values() if m.dim() > 1)
    for weight, layer in weighted_layers(model).items():
        kept = by_output(layer, masks[weight]).any(2)
        assert kept.any(), weight
        groups = kept.chunk(getattr(layer, "groups", 1))
        assert all(g[g.any(1)][:, g.any(0)].all() for g in groups), f"{weight} is not dense"


def test_a_channel_of_a_stream_is_one_in_all_its_layers():
    model = small_resnet(widening=2, shortcut="projection")
    scores = scores_of(model)
    masks = select_masks(model, scores, 1500, CHANNELS, (1, 8, 8))
    stream = masks["stages.1.0.second.conv.bias"]
    assert 0 < stream.sum() < len(stream)
    assert torch.equal(stream, masks["stages.1.0.shortcut.conv.bias"])
    assert torch.equal(stream, masks["stages.2.0.first.conv.weight"].flatten(2).any(2).any(0))


def test_the_best_sums_of_a_stream_are_kept():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)
            self.last = nn.Linear(3, 2, bias=False)

        def forward(self, x):
            return self.last(self.first(x) + F.relu(self.second(x)))

    model = Stream()
    scores = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    scores["first.weight"] *= torch.tensor([[5.0], [3.0], [1.0]])
    scores["second.weight"] *= torch.tensor([[1.0], [4.0], [4.0]])
    masks = select_masks(model, scores, 17, CHANNELS, (2,))
    assert count(masks) == 12, "6 for each channel"
    for name in ("first.weight", "second.weight"):
        assert masks[name].any(1).tolist() == [True, True, False]
    assert masks["last.weight"].any(0).tolist() == [True, True, False]
    masks = select_masks(model, scores, 8, CHANNELS, (2,))
    assert masks["last.weight"].any(0).tolist() == [False, True, False]


def test_a_score_is_one_for_each_parameter():
    model = nn.Sequential(
        nn.Linear(2, 4, bias=False), nn.Linear(4, 8, bias=False), nn.Linear(8, 2, bias=False)
    )
    scores = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    # Channels of the first layer have 2 + 8 weights and a sum of 2, of the second 4 + 2 and 4.
    masks = select_masks(model, scores, 40, CHANNELS, (2,))
    assert [int(masks[f"{i}.weight"].any(1).sum()) for i in (0, 1)] == [2, 8]
    assert count(masks) == 2 * 2 + 2 * 8 + 2 * 8


def test_whole_groups_or_channels_of_each_go():
    def units(groups):
        model = nn.Sequential(
            nn.Conv2d(1, 12, 1), nn.Conv2d(12, 12, 3, groups=groups), nn.Conv2d(12, 2, 1)
        )
        found = find_channel_units(model, (1, 4, 4), ["1.weight"])
        return len(set(found.layers["1.weight"].rows.flatten()))

    assert [units(groups) for groups in (1, 2, 3, 6, 12)] == [12, 6, 4, 6, 12]


def test_frozen_layers_keep_their_channels():
    model = small_resnet(widening=2)
    model.stem.requires_grad_(False)
    masks = select_masks(model, scores_of(model), 2000, CHANNELS, (1, 8, 8))
    assert masks["stem.conv.weight"].all()
    assert masks["stages.0.0.second.conv.weight"].flatten(1).any(1).all(), "of the same stream"
    assert not masks["stages.0.0.first.conv.weight"].flatten(1).any(1).all()


def test_scores_of_zero_are_no_ranking():
    model = small_resnet(widening=2)
    scores = {name: torch.zeros_like(score) for name, score in scores_of(model).items()}
    with pytest.raises(DryRankingError):
        select_masks(model, scores, 2000, CHANNELS, (1, 8, 8))
    total = count_parameters(model, "paper")
    masks = select_masks(model, scores, total, CHANNELS, (1, 8, 8))
    assert count(masks) == total


class Branching(nn.Module):
    """It looks at what it has computed, though only at the shape, which no symbol has."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 20), nn.Linear(20, 3)

    def forward(self, inputs):
        hidden = self.first(inputs)
        return self.last(hidden) if len(hidden) else hidden


@pytest.mark.parametrize(
    ("network", "inputs", "share", "reason"),
    [
        (Branching, torch.randn(4, 4), 0.5, "must be traceable .*that of Branching is not"),
        (LanguageModel, torch.ones(4, 8, dtype=torch.long), 0.6, "tensors or whole numbers"),
        (IDIOMS["normed tokens"][0], torch.randn(4, 3, 8, 8), 0.08, "must stay .*LayerNorm"),
    ],
)
def test_where_channels_cannot_be_followed_rows_are_ranked(network, inputs, share, reason):
    model = network()
    budget = round(share * count_parameters(model, "paper"))
    with pytest.warns(SculptWarning) as said:
        masks = sculpt.prune(
            model, budget, criterion="magnitude", inputs=inputs, granularity="channel"
        )
    assert any(re.search(reason, str(warning.message)) for warning in said)
    assert 0.5 * budget < count(masks) <= budget


def test_channels_around_what_is_not_understood_stay():
    network, shape, _ = IDIOMS["group norm"]
    model = network()
    budget = count_parameters(model, "paper") // 2
    masks = select_masks(model, scores_of(model), budget, CHANNELS, shape)
    assert masks["two.weight"].flatten(1).any(1).all()
    assert not masks["one.0.weight"].flatten(1).any(1).all()
    assert budget - 100 < count(masks) <= budget


def test_a_budget_below_the_least_is_refused():
    model = narrow(BasicBlock)
    with pytest.raises(BudgetError, match=r"one channel of every layer \(\d+ weights\)"):
        select_masks(model, scores_of(model), 100, CHANNELS, (3, 32, 32))


def test_nothing_stays_of_layers_that_nothing_takes():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.side, self.unused = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(6, 5)
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            hidden = self.first(x).relu()
            self.side(hidden)
            return self.last(hidden)

    model = Idle()
    masks = select_masks(model, scores_of(model), 45, CHANNELS, (4,))
    assert not any(masks[f"{name}.weight"].any() for name in ("side", "unused"))
    assert count(masks) == 43


def test_the_size_of_a_unit_is_what_goes_with_it():
    """A depthwise convolution has the same unit in a row and its column."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    units = find_channel_units(model, (3, 8, 8), dict(model.named_parameters()))
    every = np.ones_like(units.fixed)

    def count(kept):
        return sum(layer.count(kept) for layer in units.layers.values())

    sizes = units.sizes(every)
    for unit in np.flatnonzero(~units.fixed):
        others = every.copy()
        others[unit] = False
        assert sizes[unit] == count(every) - count(others)
        assert units.sizes(others)[unit] == sizes[unit]
