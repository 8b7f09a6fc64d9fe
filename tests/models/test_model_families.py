"""The contract of every model family."""

from collections import Counter
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import nn

import sculpt
from sculpt.diagnostics.topology import measure_topology
from sculpt.initializers import initialize
from sculpt.models import build_network
from sculpt.models.activations import Activation, make_activation
from sculpt.pruning.masks import count_parameters, dense_masks, prunable_parameters
from sculpt.registry import MODELS, options_of
from studies import write_study

FAMILIES = MODELS.names()
Shape = tuple[int, int, int]

# What makes a family small enough to be tried in many shapes; the others are small.
SMALL = {
    "vgg16": {"widening": 0.125},
    "resnet": {"blocks": 1},
    "wide_resnet": {"depth": 10},
    "resnet18": {"blocks": 1, "stem_width": 8},
    "mobile": {"blocks": 1, "stem_width": 8},
}

SHAPES = [(channels, size, size) for channels in (1, 3) for size in (28, 32, 64)]
ODD_SHAPES = [(1, 8, 8), (3, 33, 29)]


def build(name: str, shape: Shape = (3, 32, 32), classes: int = 10, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    channels, height, width = shape
    if height == 64 and "stem_stride" in options_of(MODELS.get(name)):
        options = {"stem_stride": 2} | options
    return build_network(
        name,
        channels=channels,
        classes=classes,
        pixels=height * width,
        **(SMALL.get(name, {}) | options),
    )


WITH_ACTIVATION = [name for name in FAMILIES if "activation" in options_of(MODELS.get(name))]


def structure(model: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, tensor.shape) for name, tensor in model.state_dict().items()]


def layers(model: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def test_the_families_that_are_promised_are_there_with_a_choice_of_activation():
    promised = {"resnet", "resnet18", "wide_resnet", "vgg16", "mobile", "mlp", "lenet_300_100"}
    assert promised <= set(WITH_ACTIVATION) <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
class TestTheNetwork:
    @pytest.mark.parametrize("shape", SHAPES + ODD_SHAPES, ids=str)
    def test_images_of_any_size_go_forward_and_back(self, name, shape):
        model = build(name, shape, classes=7)
        logits = model(torch.randn(2, *shape))
        logits.square().sum().backward()
        assert logits.shape == (2, 7)
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 4 - shape[0], *shape[1:]))
        assert logits.isfinite().all()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{key} is not used"
            assert parameter.grad.isfinite().all(), key

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_every_unit_and_every_weight_is_on_a_path(self, name, shape):
        model = build(name, shape)
        topology = measure_topology(model, dense_masks(model), shape)
        assert topology.channels == {key: len(x.weight) for key, x in layers(model).items()}
        assert topology.parameters == sum(x.weight.numel() for x in layers(model).values())
        assert topology.log10_paths is not None
        assert topology.log10_paths > 0

    def test_images_do_not_influence_each_other_in_inference(self, name):
        model = build(name).eval()
        # Or little of the input arrives at the end of a deep network.
        initialize(model, "variance_scaling", seed=0)
        images = torch.randn(3, 3, 32, 32)
        with torch.no_grad():
            together = model(images)
            alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(together, alone)
        assert not torch.allclose(together[0], together[1], rtol=0.01)

    def test_the_structure_depends_on_nothing_but_the_options(self, name):
        first = build(name)
        with torch.device("meta"):
            torch.manual_seed(1)
            again = build(name)
        assert structure(first) == structure(again)
        assert str(first) == str(again)
        assert prunable_parameters(first).keys() == prunable_parameters(again).keys()


@pytest.mark.parametrize("name", WITH_ACTIVATION)
class TestItsActivation:
    @pytest.mark.parametrize("activation", get_args(Activation))
    def test_it_is_the_one_in_every_place(self, name, activation):
        kinds = {type(make_activation(other)) for other in get_args(Activation)} - {nn.Identity}
        wanted, default = build(name, activation=activation), build(name)
        found = Counter(type(m) for m in wanted.modules() if type(m) in kinds)
        places = sum(type(m) in kinds for m in default.modules())
        expected = {} if activation == "linear" else {type(make_activation(activation)): places}
        assert found == expected
        assert places > 0
        assert structure(wanted) == structure(default)

    def test_every_place_has_a_module_of_its_own(self, name):
        model = build(name, activation="selu")
        calls: Counter[str] = Counter()
        for key, module in model.named_modules():
            if isinstance(module, nn.SELU):
                module.register_forward_hook(lambda *_, key=key: calls.update([key]))
        model(torch.randn(2, 3, 32, 32))
        assert set(calls.values()) == {1}

    def test_nothing_else_bends_the_signal(self, name):
        """Linear activations, averages for maxima: f(a + b) = f(a) + f(b) − f(0)."""
        model = build(name, activation="linear").double().eval()
        for module in model.modules():
            for key, child in module.named_children():
                if isinstance(child, nn.MaxPool2d):
                    setattr(module, key, nn.AvgPool2d(2, ceil_mode=True))
        initialize(model, "variance_scaling", seed=0)
        a, b = torch.randn(2, 3, 3, 32, 32, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(model(a + b), model(a) + model(b) - model(0 * a))
            assert not torch.allclose(model(a), model(0 * a), rtol=0.01)


@pytest.mark.parametrize(
    ("name", "options", "widths"),
    [
        ("mlp", {}, [784, 100, 100, 10]),
        ("mlp", {"layers": 7}, [784, *[100] * 6, 10]),
        ("mlp", {"layers": 1}, [784, 10]),
        ("mlp", {"layers": 2, "units": 30}, [784, 30, 10]),
        ("lenet_300_100", {}, [784, 300, 100, 10]),
    ],
)
def test_fully_connected_networks_have_these_widths(name, options, widths):
    model = build_network(name, channels=1, classes=10, pixels=784, **options)
    found = [tuple(layer.weight.shape) for layer in layers(model).values()]
    assert found == [(after, before) for before, after in pairwise(widths)]
    assert not isinstance(list(model.modules())[-1], nn.Tanh | nn.ReLU)
    by_hand = sum((before + 1) * after for before, after in pairwise(widths))
    assert count_parameters(model, "paper") == by_hand


def test_the_widths_inside_the_blocks_of_mobile_grow_by_its_expansion():
    narrow, wide = (build("mobile", expansion=expansion) for expansion in (2, 3))
    for one, other in zip(layers(narrow).values(), layers(wide).values(), strict=True):
        if isinstance(one, nn.Conv2d) and one.groups > 1:
            assert 2 * other.out_channels == 3 * one.out_channels


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"import"}))
def test_a_study_of_it_keeps_its_budget(name, tmp_path):
    space = {"widening": [2 * SMALL.get(name, {}).get("widening", 1)]}
    if name == "mlp":
        space = {"units": [150]}
    if name == "lenet_300_100":  # it has no width; half of it is pruned
        space = {"pruning.repair": [False]}
    path = write_study(
        tmp_path,
        data={"name": "import", "factory": "own_lab:images", "validation_fraction": 0.2},
        model={"name": name} | SMALL.get(name, {}),
        space__parameters=space,
        budget={"sparsity": 0.5},
        training__batch_size=32,
        search__trials=2,
        pruning={"images": 64, "batch_size": 16},
    )
    results = sculpt.run(path)
    base, candidate = results.finished
    assert (base["role"], candidate["role"]) == ("base", "candidate")
    assert candidate["kept_parameters"] == candidate["budget"]
    assert candidate["kept_parameters"] == round(candidate["dense_parameters"] / 2)
    assert candidate["val_error_n"] == 1
