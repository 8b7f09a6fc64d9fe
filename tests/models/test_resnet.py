"""ResNet(k, n) in both versions: sizes, widths, names, and what a block computes."""

from typing import Any

import golden
import pytest
import torch
from torch import nn

from sculpt.errors import InputError
from sculpt.models.residual_blocks import Block, PreActivationBlock, ZeroPad
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import count_parameters, prunable_parameters

VERSIONS = ["v1", "v2"]
BLOCKS = {"v1": Block, "v2": PreActivationBlock}


def meta_resnet(**options: Any) -> nn.Module:
    """Build the structure alone: the wide ones hold 17 million weights."""
    with torch.device("meta"):
        return resnet(3, 10, **options)


def blocks_of(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, Block | PreActivationBlock)]


def widths(model: nn.Module) -> list[int]:
    return [block.second.conv.out_channels for block in blocks_of(model)]


@pytest.mark.parametrize(
    ("options", "total"),
    [
        *(({"blocks": blocks}, total) for blocks, total in golden.RESNET_TOTAL.items()),
        ({"shortcut": "projection"}, golden.RESNET20_TOTAL_PROJECTION),
        ({"version": "v2"}, golden.RESNET20_V2_TOTAL_ZEROPAD),
        # Of version 2, projections have no batch norm.
        ({"version": "v2", "shortcut": "projection"}, golden.RESNET20_V2_TOTAL_PROJECTION),
    ],
    ids=str,
)
def test_known_sizes(options, total):
    assert count_parameters(meta_resnet(**options, conv_bias=False), "total") == total
    projects = "shortcut" in options
    paper = golden.RESNET20_PAPER_PROJECTION if projects else golden.RESNET20_PAPER
    if options.get("blocks", 3) == 3:
        assert count_parameters(meta_resnet(**options), "paper") == paper


def test_the_parameters_have_the_names_that_files_of_weights_have():
    model = meta_resnet(blocks=1, shortcut="projection")
    pairs = ["weight", "bias"]
    expected = [f"stem.{part}.{kind}" for part in ("conv", "norm") for kind in pairs]
    for stage, names in enumerate([["first", "second"], *[["first", "second", "shortcut"]] * 2]):
        for name in names:
            expected += [
                f"stages.{stage}.0.{name}.{part}.{kind}"
                for part in ("conv", "norm")
                for kind in pairs
            ]
    expected += [f"classifier.{kind}" for kind in pairs]
    assert [name for name, _ in model.named_parameters()] == expected


@pytest.mark.parametrize("shortcut", ["zeropad", "projection"])
def test_versions_differ_in_where_norm_and_activation_are(shortcut):
    """A convolution has one name and shape in both: one seed draws the same weights for both."""
    first, second = (
        meta_resnet(version=version, shortcut=shortcut, widening=2, activation="leaky_relu")
        for version in VERSIONS
    )
    shapes = [{n: x.shape for n, x in prunable_parameters(m).items()} for m in (first, second)]
    assert shapes[0] == shapes[1]
    # Version 2 ends in norm and activation, and its stem has neither.
    assert [type(module) for module in second.stem] == [nn.Conv2d]
    assert not hasattr(second, "stem_activation")
    assert second.last_norm.num_features == 128
    for model in (first, second):
        assert sum(isinstance(module, nn.LeakyReLU) for module in model.modules()) == 19
        assert not any(isinstance(module, nn.ReLU) for module in model.modules())
    if shortcut == "zeropad":
        for model in (first, second):
            kinds = [type(module) for module in model.modules()]
            assert kinds.count(nn.BatchNorm2d) == kinds.count(nn.Conv2d) == 19


@pytest.mark.parametrize(("shape", "percent"), golden.SPARSITY_AT_RESNET20.items())
def test_pruned_to_resnet20_the_sparsities_are_the_papers(shape, percent):
    widening, blocks = shape

    def sparsity(**options: Any) -> float:
        model = meta_resnet(widening=widening, blocks=blocks, **options)
        return 100 * (1 - golden.RESNET20_PAPER / count_parameters(model, "paper"))

    assert round(sparsity(), 2) == percent
    # Projections are too many weights for the published figures, or those say nothing.
    assert round(sparsity(shortcut="projection"), 2) != percent


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("blocks", [1, 2, 5, [1, 3, 2]], ids=str)
def test_each_stage_has_n_blocks_and_halves_the_image_but_the_first(blocks, version):
    model = meta_resnet(blocks=blocks, version=version)
    counts = blocks if isinstance(blocks, list) else [blocks] * 3
    assert widths(model) == [16] * counts[0] + [32] * counts[1] + [64] * counts[2]
    strides = [block.first.conv.stride[0] for block in blocks_of(model)]
    later = [[2] + [1] * (count - 1) for count in counts[1:]]
    assert strides == [1] * counts[0] + later[0] + later[1]
    shortcuts = [isinstance(block.shortcut, nn.Identity) for block in blocks_of(model)]
    assert shortcuts == [stride == 1 for stride in strides], "where nothing changes"
    each = dict(meta_resnet(blocks=counts, version=version).named_parameters())
    assert [(name, p.shape) for name, p in model.named_parameters()] == [
        (name, p.shape) for name, p in each.items()
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shortcut", ["zeropad", "projection"])
def test_the_stem_is_not_widened_so_stage_1_changes_width_without_a_stride(shortcut, version):
    model = resnet(3, 10, widening=2, blocks=2, shortcut=shortcut, version=version)
    first, second, *_ = blocks_of(model)
    assert model.stem.conv.out_channels == 16
    assert first.first.conv.in_channels == 16
    assert first.first.conv.out_channels == 32
    hidden = torch.randn(2, 16, 9, 7)
    assert first(hidden).shape == (2, 32, 9, 7)
    assert isinstance(second.shortcut, nn.Identity)


@pytest.mark.parametrize(
    ("options", "expected"), [({"widening": 1.3}, [21, 42, 83]), ({"stem_width": 4}, [4, 8, 16])]
)
def test_widening_need_not_be_whole_and_a_base_may_be_narrower(options, expected):
    assert widths(meta_resnet(blocks=1, **options)) == expected
    assert resnet(1, 10, blocks=1, **options)(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_tiny_imagenet_is_halved_by_the_stem():
    model = resnet(3, 200, stem_stride=2, blocks=1)
    assert model.stem(torch.randn(2, 3, 64, 64)).shape == (2, 16, 32, 32)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 200)


@pytest.mark.parametrize("version", VERSIONS)
def test_without_conv_bias_only_the_classifier_has_one(version):
    model = meta_resnet(conv_bias=False, shortcut="projection", version=version)
    biased = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
    ]
    assert biased == ["classifier"]


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 1), (2, 5)])
@pytest.mark.parametrize("shortcut", ["zeropad", "projection"])
@pytest.mark.parametrize("version", VERSIONS)
def test_both_ways_through_a_block_have_the_same_size(version, shortcut, size):
    block = BLOCKS[version](3, 6, 2, shortcut, conv_bias=True)
    out = block(torch.randn(2, 3, *size))
    assert out.shape == (2, 6, -(-size[0] // 2), -(-size[1] // 2))


@pytest.mark.parametrize(
    ("zeropad", "hidden", "expected"),
    [
        (
            ZeroPad(2, 2),
            [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 1], [0, 0, 1, 2]],
            [[[3.5, 5.5], [0, 1]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]],
        ),
        # At an odd edge over the pixels there are; without a stride it only appends.
        (ZeroPad(2, 0), [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[[3, 4.5], [7.5, 9]]]),
        (ZeroPad(1, 1), [[1, 2], [3, 4]], [[[1, 2], [3, 4]], [[0, 0], [0, 0]]]),
    ],
    ids=str,
)
def test_zeropad_averages_by_the_stride_and_appends_zero_channels(zeropad, hidden, expected):
    assert zeropad(torch.tensor([[hidden]], dtype=torch.float)).tolist() == [expected]


def test_a_block_adds_its_input():
    """With its last norm silenced, a block is the ReLU of its shortcut (He et al., Figure 2)."""
    block = Block(4, 4, 1, "zeropad", conv_bias=True)
    nn.init.zeros_(block.second.norm.weight)
    hidden = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(hidden), hidden.relu())


@pytest.mark.parametrize(("stride", "width"), [(1, 4), (1, 6), (2, 4), (2, 6)])
def test_a_pre_activation_block_adds_its_input_as_it_is(stride, width):
    """With its last convolution silenced, nothing but the shortcut is left, and nothing bends it
    (He et al. 2016b, Equation 4)."""
    block = PreActivationBlock(4, width, stride, "zeropad", conv_bias=False)
    nn.init.zeros_(block.second.conv.weight)
    hidden = torch.randn(2, 4, 6, 6)
    expected = ZeroPad(stride, width - 4)(hidden)
    torch.testing.assert_close(block(hidden), expected, rtol=0, atol=0)
    assert (expected < 0).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widening": 0.5}, ["widening", "at least 1", "0.5"]),
        ({"widening": 0}, ["widening", "0"]),
        ({"blocks": 0}, ["blocks", "at least 1"]),
        ({"blocks": -1}, ["blocks", "-1"]),
        ({"blocks": [1, 0, 2]}, ["blocks", "at least 1", "[1, 0, 2]"]),
        ({"blocks": [1, 2]}, ["blocks", "one for each stage", "[1, 2]"]),
        ({"blocks": []}, ["blocks", "one for each stage", "[]"]),
        ({"stem_width": 0}, ["stem_width", "at least 1"]),
        ({"stem_stride": 0}, ["stem_stride", "at least 1"]),
        ({"version": "v3"}, ["version", "v1, v2", "'v3'"]),
        ({"activation": "gelu"}, ["activation", "relu", "'gelu'"]),
        ({"shortcut": "zero_pad"}, ["shortcut", "zeropad", "projection", "'zero_pad'"]),
    ],
)
def test_an_option_out_of_range_is_refused(options, words):
    with pytest.raises(InputError) as refusal:
        resnet(3, 10, **options)
    for word in words:
        assert word in str(refusal.value)
