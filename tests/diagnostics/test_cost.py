"""Multiply-accumulates against counts by hand."""

import copy

import golden
import pytest
import torch
import torch.nn.functional as F
from networks import appearance
from torch import Tensor, nn

import sculpt
from sculpt.diagnostics.cost import measure_cost
from sculpt.errors import InputError, SculptWarning
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import dense_masks


def test_the_positions_of_resnet20():
    model = resnet(3, 10, blocks=1)
    cost = measure_cost(model, (3, 32, 32))
    assert cost.kept_macs(dense_masks(model)) == cost.dense_macs > 0
    blocks = {
        f"stages.{stage}.0.{place}.conv.weight": (32 >> stage) ** 2
        for stage in range(3)
        for place in ("first", "second")
    }
    assert cost.positions == {"stem.conv.weight": 32**2, **blocks, "classifier.weight": 1}


def test_kept_macs_follow_the_mask_layer_by_layer():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))
    cost = measure_cost(model, (2, 5, 5))
    masks = dense_masks(model)
    assert cost.kept_macs(masks) == 54 * 9 + 108
    masks["0.weight"].flatten()[:10] = False
    assert cost.kept_macs(masks) == 44 * 9 + 108
    masks["3.weight"][1:] = False
    assert cost.kept_macs(masks) == 44 * 9 + 27
    masks["0.bias"][:] = masks["3.bias"][:] = False  # biases multiply nothing
    assert cost.kept_macs(masks) == 44 * 9 + 27
    for mask in masks.values():
        mask.fill_(False)
    assert cost.kept_macs(masks) == 0


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(8, 12, 3, padding=1, groups=4), (8, 6, 5), 12 * 2 * 9 * 30),
        (nn.Conv2d(6, 6, 3, groups=6, bias=False), (6, 5, 5), 6 * 9 * 9),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 9, 8), 4 * 3 * 9 * 5 * 4),
        (nn.Conv2d(3, 4, (1, 5)), (3, 7, 7), 4 * 3 * 5 * 7 * 3),
        (nn.Conv1d(2, 3, 4), (2, 10), 2 * 3 * 4 * 7),
        (nn.Linear(10, 4), (10,), 40),
        (nn.Linear(10, 4), (7, 10), 7 * 40),  # the same layer at 7 positions
    ],
    ids=str,
)
def test_a_layer_by_itself(layer, shape, macs):
    cost = measure_cost(layer, shape)
    assert cost.dense_macs == macs
    assert cost.kept_macs(dense_masks(layer)) == macs


def test_a_layer_that_is_used_twice_costs_twice():
    shared = nn.Linear(5, 5)
    cost = measure_cost(nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(5, 2)), (5,))
    assert cost.positions == {"0.weight": 2, "3.weight": 1}
    assert cost.dense_macs == 2 * 25 + 10


def test_activations_are_the_outputs_of_the_leaves():
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    assert measure_cost(model, (3, 5, 6)).activations == 3 * (4 * 30) + 4 + 4 + 10


def test_the_model_is_untouched():
    model = resnet(3, 10, blocks=1, stem_width=4).train()
    before = appearance(model)
    first, second = (measure_cost(model, (3, 8, 8)) for _ in range(2))
    assert first == second
    assert appearance(model) == before


def test_nothing_is_computed():
    """The forward pass sees only shapes: this one would need 40 TB for its first output."""

    class Seen(nn.Module):
        devices: list[str] = []  # noqa: RUF012 (the traced copy shares it)

        def forward(self, images: Tensor) -> Tensor:
            self.devices.append(images.device.type)
            return images

    cost = measure_cost(nn.Sequential(nn.Conv2d(1, 10, 1), Seen()), (1, 10**6, 10**6))
    assert Seen.devices == ["meta"]
    assert cost.dense_macs == 10 * 10**12


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_precision_does_not_matter(dtype):
    model = resnet(3, 10, blocks=1, stem_width=4)
    expected = measure_cost(model, (3, 8, 8))
    assert measure_cost(model.to(dtype), (3, 8, 8)) == expected


def test_resnet20s_macs_before_it_has_weights():
    with torch.device("meta"):
        model = resnet(3, 10)
    cost = measure_cost(model, (3, 32, 32))
    assert cost.dense_macs == golden.RESNET20_MACS
    assert len(cost.positions) == 20


def test_weights_are_found_however_they_are_given():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.last = nn.ConvTranspose2d(3, 5, 2, stride=2), nn.Linear(5, 4)

        def forward(self, images):
            hidden = F.conv_transpose2d(input=images, weight=self.up.weight, stride=2)
            return F.linear(input=hidden.mean((2, 3)), weight=self.last.weight)

    cost = measure_cost(Named(), (3, 6, 6))
    assert cost.positions == {"up.weight": 36, "last.weight": 1}


class Standardised(nn.Conv2d):
    """Computes with other weights than its own (Qiao et al. 2019)."""

    def forward(self, inputs):
        spread, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (spread + 1e-5).sqrt()
        return F.conv2d(inputs, weight, self.bias, self.stride, self.padding)


def test_weights_that_a_layer_makes_others_of_are_refused_where_macs_count():
    torch.manual_seed(0)
    model = nn.Sequential(Standardised(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    cost = measure_cost(model, (3, 8, 8))
    assert (cost.positions, cost.remade) == ({"3.weight": 1}, ("0.weight",))
    options = {"inputs": torch.randn(4, 3, 8, 8), "criterion": "magnitude"}
    for refused in ({"macs": 500}, {"budget": 900, "mac_exponent": 0.5}):
        with pytest.raises(InputError, match=r"known of each weight .* the layer of 0\.weight"):
            sculpt.prune(model, **refused, **options)
    assert model[0].weight.all(), "nothing was changed"
    for allowed in ({"macs": 500}, {"budget": 900, "mac_exponent": 0.5}, {"budget": 900}):
        sculpt.prune(copy.deepcopy(model), **allowed, **options, exclude=["0.*"])
    with pytest.warns(SculptWarning, match=r"those of 0\.weight make others of them"):
        sculpt.prune(model, 900, **options)


class Product(nn.Module):
    """An autoencoder that uses its only matrix on the way back, too."""

    def __init__(self, back):
        super().__init__()
        self.code, self.back = nn.Linear(6, 4, bias=False), back

    def forward(self, inputs):
        return self.back(self.code(inputs), self.code.weight)


@pytest.mark.parametrize(
    "back",
    [
        lambda code, weight: code @ weight,
        lambda code, weight: torch.mm(code, weight),
        lambda code, weight: code.matmul(weight),
        lambda code, weight: torch.matmul(input=code, other=weight),
        lambda code, weight: torch.addmm(torch.zeros(6, device=code.device), code, weight),
        lambda code, weight: (weight.t() @ code.t()).t(),
        lambda code, weight: F.linear(code, weight.t()),
    ],
)
def test_products_of_matrices_are_uses(back):
    assert measure_cost(Product(back), (6,)).positions == {"code.weight": 2}


def test_a_network_that_reads_numbers_is_computed_with():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.mean().item()))
    assert measure_cost(model, (6,)).dense_macs == 32
    assert len(seen) == 1


class Swapped(nn.Module):
    """Calls a layer with another weight than its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, inputs):
        weight = self.layer.weight - self.layer.weight.mean()
        given = {"weight": weight, "bias": self.layer.bias}
        return torch.func.functional_call(self.layer, given, (inputs,))


def test_a_weight_that_is_swapped_is_made_of_its_own():
    assert measure_cost(Swapped(), (6,)).remade == ("layer.weight",)


class Picky(nn.Linear):
    def forward(self, inputs):
        assert inputs.device.type == "cpu", "it needs numbers"
        return super().forward(inputs)


def test_a_network_that_needs_numbers_is_given_some():
    assert measure_cost(Picky(6, 4), (6,)).dense_macs == 24
    sculpt.prune(Picky(6, 4), 10, inputs=torch.randn(5, 6), targets="uniform")
