"""N:M patterns hold, in every layer that has room for them, and meet a budget exactly."""

import itertools

import pytest
import torch
from networks import count, equal, small_resnet
from pydantic import ValidationError
from torch import nn
from torch.sparse import SparseSemiStructuredTensorCUTLASS, to_sparse_semi_structured
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

import sculpt
from sculpt.config import Pruning
from sculpt.errors import BudgetError, DryRankingError, InputError
from sculpt.pruning.mask_rule import MaskRule, select_masks
from sculpt.pruning.masks import keep_highest, prunable_parameters
from sculpt.pruning.patterns import Pattern, pattern_of
from sculpt.registry import CRITERIA, options_of

SHAPE = (1, 8, 8)
IMAGES = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 10
CHOOSE_WHOLE_MASKS = {"erk_random", "from_bundle", "npb"}


class Zoo(nn.Module):
    """Layers of every kind, of 6 outputs, with inputs that no 4 divides among them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 6, 3, padding=1, groups=2)
        self.turned = nn.ConvTranspose2d(6, 10, 2, stride=2, groups=1)
        self.both = nn.ConvTranspose2d(10, 4, 2, groups=2)
        self.head = nn.Linear(4, 7)

    def forward(self, images):
        hidden = self.grouped(self.depthwise(self.first(images).tanh())).tanh()
        return self.head(self.both(self.turned(hidden)).mean((2, 3)))


def draw(model, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(parameter.shape, generator=stream) + 0.01
        for name, parameter in prunable_parameters(model).items()
    }


def runs_of(layer, mask, run):
    """List the runs of a mask by loops: each a list of the indices of a weight."""
    found = []
    if isinstance(layer, nn.Linear):
        for out in range(mask.shape[0]):
            row = [(out, i) for i in range(mask.shape[1])]
            found += [row[i : i + run] for i in range(0, len(row), run)]
        return found
    for position in itertools.product(*map(range, mask.shape[2:])):
        if layer.transposed:
            inputs = mask.shape[0] // layer.groups
            for group, out in itertools.product(range(layer.groups), range(mask.shape[1])):
                row = [(group * inputs + i, out, *position) for i in range(inputs)]
                found += [row[i : i + run] for i in range(0, inputs, run)]
        else:
            for out in range(mask.shape[0]):
                row = [(out, i, *position) for i in range(mask.shape[1])]
                found += [row[i : i + run] for i in range(0, len(row), run)]
    return found


def layers_of(model):
    return {
        f"{name}.weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
    }


def inputs_of(layer):
    inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    return inputs // getattr(layer, "groups", 1)


def holds(model, masks, n, m):
    """Whether every run of every layer with at least m inputs keeps at most n."""
    return all(
        sum(bool(masks[name][index]) for index in run) <= n
        for name, layer in layers_of(model).items()
        if inputs_of(layer) >= m
        for run in runs_of(layer, masks[name], m)
    )


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 3), (3, 4), (1, 2), (4, 8)])
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_the_highest_of_each_run_stay_down_to_the_budget(n, m, share):
    model = Zoo()
    scores, pattern = draw(model), pattern_of(f"{n}:{m}")
    limits = pattern.limits(model)
    most = sum(limits.values())
    kept = round(share * most)
    masks = select_masks(model, scores, kept, MaskRule(granularity=f"{n}:{m}"), None)
    assert count(masks) == kept
    assert holds(model, masks, n, m)
    # By hand: a rank within the run below n, then the highest of these.
    allowed = {name: torch.ones_like(score) for name, score in scores.items()}
    for name, layer in layers_of(model).items():
        if inputs_of(layer) >= m:
            for run in runs_of(layer, scores[name], m):
                for index in sorted(run, key=lambda index: -scores[name][index])[n:]:
                    allowed[name][index] = 0
    assert {name: int(mask.sum()) for name, mask in allowed.items()} == limits
    ranked = {name: scores[name] * allowed[name] for name in scores}
    if kept < most:
        assert equal(masks, keep_highest(ranked, kept))
    else:
        assert all(torch.equal(masks[name], allowed[name] > 0) for name in masks)


def test_layers_of_fewer_inputs_and_biases_are_spared_and_a_last_run_may_be_short():
    model = Zoo()
    limits = Pattern(2, 4).limits(model)
    assert limits["first.weight"] == 8 * 9
    assert limits["depthwise.weight"] == 8 * 9
    assert limits["first.bias"] == 8
    assert limits["grouped.weight"] == 6 * 2 * 9  # 4 inputs of each group
    assert limits["turned.weight"] == 10 * 4 * (2 + 2)  # 6 inputs: one run, and 2 left
    assert limits["both.weight"] == 4 * 4 * (2 + 1)  # 5 inputs of each group
    assert limits["head.weight"] == 7 * 2


def test_a_budget_without_room_is_refused_and_the_largest_number_said():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 4))
    # Half of 512 and 32 weights, and all of 12 biases.
    with pytest.raises(BudgetError, match=r"keeps at most 284 \(12 of them biases.* leaves 285 "):
        sculpt.prune(model, 285, inputs=IMAGES, granularity="2:4")
    sculpt.prune(model, 284, inputs=IMAGES, granularity="2:4")
    assert count(dict(model.named_parameters())) == 284


def test_ties_go_to_the_first_inputs_and_zeros_never_fill():
    model = nn.Sequential(nn.Linear(8, 1, bias=False))
    rule = MaskRule(granularity="1:4")
    ones = {"0.weight": torch.ones(1, 8)}
    masks = select_masks(model, ones, 2, rule, None)
    assert masks["0.weight"].nonzero()[:, 1].tolist() == [0, 4]
    ones["0.weight"][0, 4:] = 0
    with pytest.raises(
        DryRankingError, match=r"among the 2 highest .* only 2 are; .* all of the 4 "
    ):
        select_masks(model, ones, 3, MaskRule(granularity="2:4"), None)
    masks = select_masks(model, ones, 4, MaskRule(granularity="2:4"), None)
    assert masks["0.weight"].nonzero()[:, 1].tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("mac_exponent", [0.0, 1.0])
@pytest.mark.parametrize("effective", [False, True])
def test_it_holds_with_every_other_setting(scope, mac_exponent, effective):
    model = small_resnet(widening=2)
    kept = 900
    rule = MaskRule(scope, "2:4", mac_exponent, effective)
    masks = select_masks(model, draw(model), kept, rule, SHAPE)
    assert holds(model, masks, 2, 4)
    assert count(masks) == kept


def test_layers_have_one_share_of_what_is_possible():
    model = small_resnet(widening=4)
    limits = Pattern(2, 4).limits(model)
    kept = sum(limits.values()) * 2 // 3
    masks = select_masks(model, draw(model), kept, MaskRule("layer", "2:4"), SHAPE)
    for name, layer in layers_of(model).items():
        bias = name.replace("weight", "bias")
        own = limits[name] + limits[bias]
        assert abs(count({0: masks[name], 1: masks[bias]}) - own * kept / sum(limits.values())) < 1
        assert layer.weight.shape == masks[name].shape


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA.names()) - CHOOSE_WHOLE_MASKS))
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_every_criterion_that_scores_can_be_given_a_pattern(criterion, share):
    """Those that prune in rounds, too: no round takes what the pattern keeps in the end."""
    model = small_resnet(widening=2)
    limits = Pattern(2, 4).limits(model)
    # Fresh biases score nothing.
    kept = int(share * sum(n for name, n in limits.items() if name.endswith("weight")))
    options = {"rounds": 5} if "rounds" in options_of(CRITERIA.get(criterion)) else {}
    masks = sculpt.prune(
        model, kept, criterion=criterion, inputs=IMAGES, labels=LABELS, granularity="2:4", **options
    )
    assert count(masks) == kept
    assert holds(model, masks, 2, 4)


@pytest.mark.parametrize("criterion", ["erk_random", "npb"])
def test_those_that_choose_a_whole_mask_are_refused(criterion):
    model = small_resnet(widening=2)
    with pytest.raises(DryRankingError, match="erk_random and npb choose a whole mask"):
        sculpt.prune(model, 900, criterion=criterion, input_shape=SHAPE, granularity="2:4")


@pytest.mark.parametrize("given", ["4:2", "2:2", "0:4", "2:40", "02:4", "N:M", "2-4", ""])
def test_what_is_no_pattern_is_refused(given):
    with pytest.raises(InputError, match=r"1 ≤ N < M ≤ 32|must be one of weight, kernel, channel"):
        MaskRule(granularity=given)
    with pytest.raises(ValidationError):  # nor is it in a study file
        Pruning(granularity=given)


def test_a_study_file_takes_the_same_patterns():
    for given in ("weight", "kernel", "channel", "2:4", "1:2", "31:32"):
        assert MaskRule(granularity=given).granularity == Pruning(granularity=given).granularity


def test_attention_and_shared_weights_have_it_too():
    model = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(8, 2), "one": nn.Linear(8, 8), "other": nn.Linear(8, 8)}
    )
    model["other"].weight = model["one"].weight
    kept = sum(Pattern(2, 4).limits(model).values())
    assert kept == (24 * 8 + 8 * 8 + 8 * 8) // 2 + 24 + 8 + 8 + 8
    masks = select_masks(model, draw(model), kept - 9, MaskRule(granularity="2:4"), None)
    assert count(masks) == kept - 9
    for name, mask in masks.items():
        if name.endswith("weight"):
            assert mask.view(len(mask), 2, 4).sum(2).max() == 2, name


def test_a_shuffled_pattern_keeps_its_runs_and_is_another():
    layer = nn.Linear(10, 64)
    mask = Pattern(2, 4)._best(layer, torch.rand(64, 10))
    moved = Pattern(2, 4).shuffled(layer, mask, torch.Generator().manual_seed(0))
    assert holds(nn.Sequential(layer), {"0.weight": moved}, 2, 4)
    assert moved.sum() == mask.sum()
    assert not torch.equal(moved, mask)
    assert all(moved[:, place].any() for place in range(10))


def linear_networks(dtype, device):
    """A linear layer of a network that is pruned to 2:4, and below it."""
    for share in (0.5, 0.2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(256, 128, bias=False), nn.ReLU(), nn.Linear(128, 64, False))
        kept = round(share * sum(p.numel() for p in model.parameters()))
        sculpt.prune(model, kept, criterion="magnitude", granularity="2:4")
        for layer in (model[0], model[2]):
            yield layer.weight.detach().to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pytorch_s_semi_structured_format_loses_nothing_of_it(dtype):
    """Its compression, which runs on a CPU, too, drops what more than 2 of 4 keep."""
    for weight in linear_networks(dtype, "cpu"):
        values, places = sparse_semi_structured_from_dense_cutlass(weight)
        assert values.numel() == weight.numel() // 2
        assert places.numel() * places.itemsize == weight.numel() // 8
        assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, places), weight)
        rows, columns = weight.shape
        least = SparseSemiStructuredTensorCUTLASS._DTYPE_SHAPE_CONSTRAINTS[dtype]
        assert rows % least.sparse_min_rows == columns % least.sparse_min_cols == 0
    dense = torch.ones_like(weight)
    packed = sparse_semi_structured_from_dense_cutlass(dense)
    assert not torch.equal(sparse_semi_structured_to_dense_cutlass(*packed), dense)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor is in prototype")
def test_pytorch_s_semi_structured_layers_compute_the_same():
    for weight in linear_networks(torch.float16, "cuda"):
        inputs = torch.randn(128, weight.shape[1], device="cuda", dtype=torch.float16)
        sparse = to_sparse_semi_structured(weight)
        assert torch.equal(sparse.to_dense(), weight)
        torch.testing.assert_close(
            nn.functional.linear(inputs, sparse), inputs @ weight.T, rtol=1e-2, atol=1e-2
        )
