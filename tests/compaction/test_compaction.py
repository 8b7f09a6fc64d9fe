"""A compact network computes what the full one does, and trains as it does."""

import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from idioms import IDIOMS, channel_masks
from networks import Undecided, equal, random_masks
from torch import Tensor, nn
from torchvision.models import resnet18, vgg

from sculpt.compaction import Compaction, largest_difference, narrow_for_training
from sculpt.compaction.calls import Call
from sculpt.compaction.narrowing import Gather, Scatter
from sculpt.compaction.plan import LayerPlan
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import Masks, check_masks, weighted_layers
from sculpt.errors import CompactionError, InputError
from sculpt.graph.channels import Link
from sculpt.models import build_network
from sculpt.models.residual_blocks import ConvNorm
from sculpt.pruning.masks import apply_masks, count_parameters, dense_masks
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA, MODELS

SHAPE = (3, 16, 16)

# What makes a family small; those that are not named here are.
SMALL: dict[str, list[dict[str, Any]]] = {
    "resnet": [
        {"blocks": 2, "widening": 2, "stem_width": 6},
        {"blocks": 1, "widening": 2, "stem_width": 8, "shortcut": "projection"},
        {"blocks": 2, "widening": 2, "stem_width": 6, "version": "v2"},
        {"blocks": 1, "widening": 2, "stem_width": 8, "activation": "tanh", "conv_bias": False},
        {"blocks": 1, "widening": 1, "stem_width": 16, "activation": "leaky_relu"},
        {"blocks": 1, "widening": 2, "stem_width": 8, "activation": "linear"},
    ],
    "wide_resnet": [{"depth": 10, "widening": 2, "stem_width": 6}],
    "vgg16": [{"widening": 0.125}, {"widening": 0.125, "batch_norm": False, "activation": "selu"}],
    "mlp": [{"layers": 4, "units": 30}],
    "mobile": [{"blocks": 2, "stem_width": 8}],
    "resnet18": [{"blocks": 1, "stem_width": 8}],
}
NETWORKS = [(name, options) for name in MODELS.names() for options in SMALL.get(name, [{}])]


def build(name: str, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return build_network(
        name, channels=3, classes=5, pixels=SHAPE[1] * SHAPE[2], **options
    ).double()


def images(count: int = 8, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator)


def without_constants(model: nn.Module, masks: Masks) -> Masks:
    """Prune biases in front of batch norms, if a model has any.

    The norm of a bias alone is a rounding error, and so is on which side of a ReLU it comes to
    lie: such a network takes other steps with every other order of its sums.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        *biases, _ = [name for name in masks if name.endswith("bias")]
        for name in biases:
            masks[name][:] = False
    return masks


def few_masks(model: nn.Module) -> Masks:
    """Keep 2 % of the weights, and a bias here and there."""
    return without_constants(model, random_masks(model, 0.02, seed=1))


def sensitivity_masks(model: nn.Module) -> Masks:
    total, prunable = (count_parameters(model, rule) for rule in ("total", "paper"))
    norms = total - prunable
    task = PruningTask(
        model,
        kept if (kept := int(total * 0.04) - norms) > 0 else prunable // 25,
        batches=lambda: [(images(), torch.zeros(8, dtype=torch.long))],
    )
    masks = task.select(CRITERIA.get("connection_sensitivity")(model, task))
    return without_constants(model, masks)


def masks_with_dead_layers(model: nn.Module) -> Masks:
    """Keep all of the first and last layer, of each second one half the rows, else nothing."""
    masks = dense_masks(model)
    layers = list(weighted_layers(model))
    for place, name in enumerate(layers[1:-1]):
        masks[name][: len(masks[name]) // 2 if place % 2 else None] = False
        bias = name.removesuffix("weight") + "bias"
        if bias in masks:
            masks[bias][:] = False
    return masks


RESNET18 = pytest.param(partial(resnet18, num_classes=5), marks=pytest.mark.slow)
MASKS = [few_masks, sensitivity_masks, masks_with_dead_layers]


def prepare(model: nn.Module, masks: Masks) -> Compaction:
    apply_masks(model, masks)
    return narrow_for_training(model, masks, images(2))


def train(
    model: nn.Module,
    masks: Masks,
    *,
    nesterov: bool = True,
    steps: int = 10,
    shape: tuple[int, ...] = SHAPE,
) -> None:
    model.train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, nesterov=nesterov, weight_decay=5e-4, fused=True
    )
    for step in range(steps):
        # Of the same random numbers, where there is dropout.
        torch.manual_seed(step)
        inputs, labels = images(seed=step, shape=shape), torch.arange(8) % 5
        inputs = inputs.to(next(model.parameters()).dtype)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        apply_masks(model, masks)


def live_norms(model: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, Tensor]]:
    """Return the channels of every batch norm that the loss depends on, by their gradients."""
    probe = copy.deepcopy(model).train()
    F.cross_entropy(probe(images(shape=shape)), torch.arange(8) % 5).backward()
    return [
        (name, norm.weight.grad != 0)
        for name, norm in probe.named_modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm)
    ]


def check_trajectory(
    model: nn.Module,
    masks: Masks,
    compaction: Compaction,
    shape: tuple[int, ...] = SHAPE,
    **how: Any,
) -> None:
    full = copy.deepcopy(model)
    live = live_norms(model, shape)
    train(full, masks, shape=shape, **how)
    train(compaction.model, compaction.masks, shape=shape, **how)
    compaction.restore()

    # Weight decay alone moves a weight by about 1e-5.
    near = {"rtol": 1e-9, "atol": 1e-12}
    expected, found = full.state_dict(), model.state_dict()
    for name, _ in model.named_parameters():
        torch.testing.assert_close(found[name], expected[name], **near, msg=name)
    for norm, channels in live:
        for statistic in ("running_mean", "running_var"):
            key = f"{norm}.{statistic}"
            torch.testing.assert_close(
                found[key][channels], expected[key][channels], **near, msg=key
            )
    with torch.no_grad():
        unseen = images(seed=99, shape=shape)
        torch.testing.assert_close(model.eval()(unseen), full.eval()(unseen), **near)


def selection_macs(model: nn.Module) -> int:
    """Count the multiply-accumulates of the selections by running them on one image."""
    counts = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.dim() == 4:
            positions = output.shape[2] * output.shape[3]
            counts.append(inputs[0].shape[1] * output.shape[1] * positions)

    probe = copy.deepcopy(model).eval()
    for module in probe.modules():
        if isinstance(module, Gather | Scatter):
            module.register_forward_hook(record)
    probe(images(1))
    return sum(counts)


@pytest.mark.slow
@pytest.mark.parametrize("choose", MASKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=str)
def test_a_compact_network_is_the_same_function_and_takes_the_same_steps(
    name: str, options: dict[str, Any], choose: Callable[[nn.Module], Masks]
):
    model = build(name, options)
    masks = choose(model)
    compaction = prepare(model, masks)
    before = copy.deepcopy(model.state_dict())

    assert largest_difference(model, masks, compaction, images()) < 1e-12
    assert equal(model.state_dict(), before)
    check_masks(compaction.model, compaction.masks)
    plan, cost = compaction.plan, measure_cost(compaction.model, SHAPE)
    assert json.loads(json.dumps(plan)) == plan
    assert plan["dense_macs"] == measure_cost(model, SHAPE).dense_macs
    assert plan["macs"] == cost.dense_macs + selection_macs(compaction.model)
    assert plan["saving"] == 1 - plan["macs"] / plan["dense_macs"] >= 0
    planned = {
        entry["name"] for entry in plan["layers"]
    }  # not depthwise: as wide as what they read
    layers = zip(weighted_layers(model), weighted_layers(compaction.model).values(), strict=True)
    weights = [layer.weight.shape for name, layer in layers if name in planned]
    wide = weighted_layers(model).items()
    assert planned == {
        name for name, layer in wide if isinstance(layer, nn.Linear) or layer.groups == 1
    }
    assert [(entry["rows"], entry["columns"]) for entry in plan["layers"]] == [
        tuple(shape[:2]) for shape in weights
    ]
    if choose is not sensitivity_masks:
        assert plan["saving"] > 0.01
    # Where convolutions have no bias, constant channels come from norms, and the next norm
    # multiplies their rounding errors by 300 in every step.
    chaotic = name == "mobile" and choose is sensitivity_masks
    check_trajectory(model, masks, compaction, steps=1 if chaotic else 10)


def torchvision_vgg() -> nn.Module:
    """VGG11 of torchvision, with a small classifier in the place of its 120M weights."""
    features = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(2048, 5))


@pytest.mark.parametrize("network", [RESNET18, torchvision_vgg])
def test_networks_of_torchvision(network: Callable[[], nn.Module]):
    torch.manual_seed(0)
    model = network()
    masks, inputs = random_masks(model, 0.002, seed=1), torch.randn(2, 3, 32, 32)
    compaction = narrow_for_training(model, masks, inputs)

    assert compaction.plan["saving"] > 0.2
    assert largest_difference(model, masks, compaction, inputs) < 1e-12


def resnet_masks() -> tuple[nn.Module, Masks]:
    model = build("resnet", {"blocks": 2, "widening": 3, "stem_width": 8})
    return model, few_masks(model)


@pytest.mark.slow
def test_without_nesterov_the_steps_are_the_same_too():
    model, masks = resnet_masks()
    check_trajectory(model, masks, prepare(model, masks), nesterov=False)


def test_adamw_trains_the_same_function():
    """Not the same biases in front of batch norms: all their gradient is rounding errors."""
    model, masks = resnet_masks()
    compaction, full = prepare(model, masks), copy.deepcopy(model)
    for network, own in ((full, masks), (compaction.model, compaction.masks)):
        network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
        for step in range(10):
            optimizer.zero_grad()
            F.cross_entropy(network(images(seed=step)), torch.arange(8) % 5).backward()
            optimizer.step()
            apply_masks(network, own)
    compaction.restore()
    with torch.no_grad():
        unseen = images(seed=99)
        torch.testing.assert_close(model.eval()(unseen), full.eval()(unseen), rtol=1e-6, atol=1e-8)


def test_streams_are_gathered_from_and_scattered_to():
    model, masks = resnet_masks()
    layers = prepare(model, masks).plan["layers"]

    assert any(layer["gathered"] for layer in layers)
    assert any(layer["scattered"] for layer in layers)
    assert any(layer["rows"] < layer["of_rows"] and not layer["scattered"] for layer in layers)


@pytest.mark.parametrize(
    ("layer", "rows", "columns", "copies"),
    [
        (nn.Conv2d(1, 1, 3), (32, 32), (31, 32), (False, False)),
        (nn.Conv2d(1, 1, 3), (32, 32), (4, 32), (True, False)),
        (nn.Conv2d(1, 1, 3), (4, 32), (32, 32), (False, True)),
        (nn.Linear(1, 1), (10, 10), (100, 512), (True, False)),
        (nn.Linear(1, 1), (4, 4), (500, 512), (False, False)),
        (nn.Linear(1, 1), (1, 400), (500, 500), (False, False)),
    ],
)
def test_a_selection_must_save_more_than_it_costs(
    layer: nn.Module, rows: tuple[int, int], columns: tuple[int, int], copies: tuple[bool, bool]
):
    side = 8 if isinstance(layer, nn.Conv2d) else 1
    call = Call("weighted", "layer", layer, (rows[1], side, side), Link(rows[1]))
    needed, present = (
        [np.arange(counts[1]) < counts[among] for counts in (rows, columns)] for among in (0, 1)
    )
    plan = LayerPlan(call, side * side, *needed, *present).cheapest()
    assert (plan.gathered, plan.scattered) == copies


@pytest.mark.parametrize("channels_last", [False, True])
def test_biases_that_masks_prune_are_left_out_and_come_back(channels_last: bool):
    torch.manual_seed(0)
    model = OneBlock()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    masks = dead_inner_row(model)
    for name in masks:
        if name.endswith("conv.bias"):
            masks[name][:] = False
    compaction = prepare(model, masks)
    names = list(model.state_dict())
    convolutions = {
        f"{name}.bias": module
        for name, module in compaction.model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert all(module.bias is None for module in convolutions.values())
    assert compaction.masks["network.classifier.bias"].all()

    # The steps are those of the same network with zeros for biases, to the bit.
    biased, biased_masks = copy.deepcopy(compaction.model), dict(compaction.masks)
    for name, module in convolutions.items():
        bias = nn.Parameter(torch.zeros(module.out_channels))
        biased.get_submodule(name.removesuffix(".bias")).bias = bias
        biased_masks[name] = torch.zeros(module.out_channels, dtype=torch.bool)
    ordered = {
        name: biased_masks[name] for name, _ in biased.named_parameters() if name in biased_masks
    }
    train(compaction.model, compaction.masks, steps=3)
    train(biased, ordered, steps=3)
    trained = biased.state_dict()
    assert not any(trained.pop(name).any() for name in convolutions)
    assert equal(compaction.model.state_dict(), trained)

    for name in names:
        if name.endswith("conv.bias"):
            model.get_parameter(name).data.fill_(7.0)  # whatever became of it meanwhile
    compaction.restore()
    assert list(model.state_dict()) == names
    for name in names:
        assert not name.endswith("conv.bias") or not model.state_dict()[name].any()


def test_a_dense_network_stays_as_it_is():
    model = build("resnet", {"blocks": 1, "stem_width": 4})
    compaction = prepare(model, dense_masks(model))

    assert compaction.plan["saving"] == compaction.plan["removed_parameters"] == 0
    check_trajectory(model, dense_masks(model), compaction)


def test_removed_parameters_are_those_that_masks_keep_in_vain():
    """Unit 0 has no inputs; unit 1 has no outputs; unit 2 has both."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).double()
    masks = dense_masks(model)
    masks["0.weight"][0] = masks["0.bias"][0] = False
    masks["3.weight"][:, 1] = False
    apply_masks(model, masks)
    compaction = narrow_for_training(model, masks, torch.zeros(2, 4))

    rows = [layer["rows"] for layer in compaction.plan["layers"]]
    columns = [layer["columns"] for layer in compaction.plan["layers"]]
    assert (rows, columns) == ([1, 2], [4, 1])
    # Two outputs of unit 0, five inputs of unit 1, and two norm parameters of each.
    assert compaction.plan["removed_parameters"] == 2 + 5 + 4


def test_restoring_again_changes_nothing():
    model, masks = resnet_masks()
    compaction = prepare(model, masks)
    train(compaction.model, compaction.masks, steps=2)

    compaction.restore()
    once = copy.deepcopy(model.state_dict())
    compaction.restore()

    assert compaction.model.get_parameter("decay").item() < 1
    assert equal(model.state_dict(), once)


def test_memory_format_precision_and_mode_are_kept():
    model = build("vgg16", {"widening": 0.25}).float().to(memory_format=torch.channels_last).eval()
    compaction = prepare(model, few_masks(model))

    assert not any(module.training for module in compaction.model.network.modules())
    for parameter in compaction.model.parameters():
        assert parameter.dtype == torch.float32
        if parameter.dim() == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)


class OneBlock(nn.Module):
    """A residual block of 6 channels between a stem and a classifier."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.stem = ConvNorm(3, 6, 3, 1, True)
        self.first = activation()
        self.inner = ConvNorm(6, 6, 3, 1, True)
        self.activation = activation()
        self.outer = ConvNorm(6, 6, 3, 1, True)
        self.last = activation()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(6, 5)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.first(self.stem(hidden))
        hidden = self.last(hidden + self.outer(self.activation(self.inner(hidden))))
        return self.classifier(self.pool(hidden).flatten(1))


def dead_inner_row(model: nn.Module) -> Masks:
    """Leave the first unit of the layer `inner` without inputs."""
    masks = dense_masks(model)
    masks["inner.conv.weight"][0] = masks["inner.conv.bias"][0] = False
    return masks


def inner_units(model: nn.Module) -> int:
    """Return how many units are left behind the layer `inner`."""
    return prepare(model, dead_inner_row(model)).plan["layers"][2]["columns"]


def test_a_unit_without_inputs_goes_only_if_nothing_can_move_its_shift():
    torch.manual_seed(0)
    plain, tanh, shifted, moved = OneBlock(), OneBlock(nn.Tanh), OneBlock(), OneBlock()
    shifted.inner.norm.bias.data[0] = 0.1
    moved.inner.norm.running_mean[0] = 0.1

    assert inner_units(plain) == 5
    assert inner_units(tanh) == inner_units(shifted) == inner_units(moved) == 6


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("shift", [0.0, 0.3, -0.3])
def test_whatever_is_behind_a_batch_norm_the_steps_are_the_same(
    activation: type[nn.Module], shift: float
):
    torch.manual_seed(0)
    model = OneBlock(activation).double()
    nn.init.constant_(model.inner.norm.bias, shift)
    nn.init.constant_(model.outer.norm.bias, shift)
    masks = dead_inner_row(model)
    # Dead in the outer layer while its stream is alive, and the other way round.
    masks["outer.conv.weight"][1:5] = masks["outer.conv.bias"][1:5] = False
    masks["stem.conv.weight"][4:] = masks["stem.conv.bias"][4:] = False
    compaction = prepare(model, masks)

    assert largest_difference(model, masks, compaction, images()) < 1e-12
    check_trajectory(model, masks, compaction)


def test_a_sum_of_dead_channels_is_dead():
    """Two shifts hold each other at 0: neither may move unless the other does."""
    torch.manual_seed(0)
    model = OneBlock().double()
    masks = dense_masks(model)
    for layer in ("stem", "outer"):
        masks[f"{layer}.conv.weight"][0] = masks[f"{layer}.conv.bias"][0] = False
    compaction = prepare(model, masks)
    assert compaction.plan["layers"][0]["rows"] == compaction.plan["layers"][3]["columns"] == 5
    check_trajectory(model, masks, compaction)

    model.stem.norm.bias.data[0] = 0.1
    assert prepare(model, masks).plan["layers"][3]["columns"] == 6


class Foreign(nn.Module):
    """Pieces that are not understood, between layers that are."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.twice = nn.Conv2d(8, 8, 1)
        self.dropout = nn.Dropout(0.2)
        self.norm = nn.GroupNorm(2, 8)
        self.classifier = nn.Linear(16, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.second(F.relu(self.first(inputs)))
        hidden = self.dropout(self.twice(self.twice(self.grouped(hidden)).sin()))
        hidden = self.norm(hidden).mean((2, 3))
        return self.classifier(torch.cat([hidden, 1 - hidden], 1))


def test_what_is_not_understood_is_left_alone():
    torch.manual_seed(0)
    model = Foreign().double()
    masks = few_masks(model)
    compaction = prepare(model, masks)

    first, second, classifier = compaction.plan["layers"]
    names = [layer["name"] for layer in (first, second, classifier)]
    assert names == ["first.weight", "second.weight", "classifier.weight"]
    assert first["rows"] < 8
    # What goes to the grouped convolution keeps its width.
    assert second["scattered"]
    shapes = {name: p.shape for name, p in compaction.model.network.named_parameters()}
    assert shapes["grouped.weight"] == (8, 4, 3, 3)
    assert shapes["twice.weight"] == (8, 8, 1, 1)
    assert largest_difference(model, masks, compaction, images()) < 1e-12
    check_trajectory(model, masks, compaction)


class Flat(nn.Module):
    """A network whose results are taken for logits, whatever they are."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs).flatten(1)


SHUFFLE = ["chunk", "size", "view", "transpose", "contiguous", "view_1", "split", "getitem_8"]
LEFT_WHOLE = {
    "unet": ["network.again (ConvTranspose2d)"],
    "shuffle": [f"{name} ({name.partition('_')[0]})" for name in SHUFFLE],
    "group norm": ["network.norms.0 (GroupNorm)"],
    "instance norm": ["network.norms.0 (InstanceNorm2d)"],
    "tokens": ["mul (mul)"],
    "normed tokens": ["network.norm (LayerNorm)", "mul (mul)"],
    "films": ["network.two (Conv3d)"],
    "foreign": [
        "sin (sin)",
        *["network.twice (Conv2d)"] * 2,
        *("softmax (softmax)", "normalize (normalize)"),
    ],
}
"""Calls around which channels stay: of convolutions of several groups, too."""


@pytest.mark.parametrize("idiom", sorted(IDIOMS.keys() - {"unet of sizes"}))
def test_networks_of_every_idiom(idiom: str):
    torch.manual_seed(0)
    network, shape, _ = IDIOMS[idiom]
    model = Flat(network()).double()
    masks = without_constants(model, channel_masks(model, 0.5, seed=1))
    apply_masks(model, masks)
    inputs = images(shape=shape)
    compaction = narrow_for_training(model, masks, inputs)
    assert largest_difference(model, masks, compaction, inputs) < 1e-12
    assert compaction.plan["saving"] > 0.05
    assert compaction.plan.get("left_whole", []) == LEFT_WHOLE.get(idiom, [])
    sizes = [sum(p.numel() for p in net.parameters()) for net in (compaction.model, model)]
    assert sizes[0] < sizes[1]
    check_trajectory(model, masks, compaction, shape, steps=5)


class Halved(Undecided):
    """It skips its layer in evaluation."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) if self.training else inputs


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Undecided(4, 4), "traceable"),
        (Halved(4, 4), "the same layers in training and in evaluation"),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), "traceable"),
        (nn.Linear(4, 4), "used once"),
    ],
    ids=["branch", "mode", "wrong shape", "layer alone"],
)
def test_what_cannot_be_compacted_is_refused_with_a_reason(model: nn.Module, reason: str):
    with pytest.raises(CompactionError, match=reason) as caught:
        narrow_for_training(model, dense_masks(model), torch.zeros(2, 4))
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="one mask for each"):
        narrow_for_training(model, {}, torch.zeros(2, 4))


def test_a_wrong_removal_is_found():
    """The difference and the trajectory tests see a channel that is lost."""
    model, masks = resnet_masks()
    compaction = prepare(model, masks)
    *_, classifier = weighted_layers(compaction.model).values()
    classifier.weight.data[0, 0] += 0.1

    assert largest_difference(model, masks, compaction, images()) > 1e-4


def test_of_a_flattened_channel_each_position_may_be_read():
    """The first is zero; the second is read in none of its four, the third in one."""
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), *head).double()
    masks = dense_masks(model)
    masks["0.weight"][0] = masks["0.bias"][0] = False
    masks["4.weight"][:, 4:11] = False
    compaction = prepare(model, masks)
    assert [layer["rows"] for layer in compaction.plan["layers"]] == [2, 2]
    assert largest_difference(model, masks, compaction, images()) < 1e-12


@pytest.mark.parametrize("block", [2, 4, 1000])
def test_layers_keep_whole_blocks_where_they_have_as_many(block: int):
    model, masks = resnet_masks()
    single = prepare(model, masks)
    whole = narrow_for_training(model, masks, images(2), block=block)
    assert largest_difference(model, masks, whole, images(8)) < 1e-12
    for layer in whole.plan["layers"]:
        for side in ("rows", "columns"):
            assert layer[side] % block == 0 or layer[side] == layer[f"of_{side}"]
    if block == 1000:
        assert whole.plan["saving"] == 0
    else:
        assert 0 < whole.plan["saving"] < single.plan["saving"]
