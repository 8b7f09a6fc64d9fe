"""NPB: what the layers are given, in which order, and what is kept of the kernels."""

from typing import Any

import numpy as np
import pytest
import torch
from networks import equal
from torch import Tensor, nn

from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import InputError
from sculpt.models.resnet import resnet
from sculpt.pruning.criteria import npb as source
from sculpt.pruning.criteria.npb import npb
from sculpt.pruning.layer_budgets import erk_counts
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.node_path import kernel_counts
from sculpt.pruning.task import PruningTask


def score(
    model: nn.Module, kept: int, *shape: int, seed: int = 0, **options: Any
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return npb(model, PruningTask(model, kept, generator=generator, input_shape=shape), **options)


def assert_erk(model: nn.Module, kept: int, scores: dict[str, Tensor]) -> None:
    shapes = {name: parameter.shape for name, parameter in prunable_parameters(model).items()}
    counts = {name: int(tensor.count_nonzero()) for name, tensor in scores.items()}
    assert counts == erk_counts(shapes, kept)
    assert all(((tensor == 0) | (tensor == 1)).all() for tensor in scores.values())


@pytest.mark.parametrize("kept", [1, 30, 700, 4000, 4800])
def test_layers_keep_what_erk_says(kept):
    model = resnet(1, 10, blocks=1, stem_width=4)
    assert_erk(model, kept, score(model, kept, 1, 8, 8))


@pytest.mark.parametrize("shortcut", ["zeropad", "projection"])
def test_each_layer_is_told_the_paths_through_the_masks_before_it(shortcut, monkeypatch):
    """As counted again afterwards, with the final masks."""
    model = resnet(1, 10, blocks=2, stem_width=4, shortcut=shortcut)
    told: list[np.ndarray] = []

    def listening(paths: np.ndarray, *rest: Any, **options: Any) -> np.ndarray:
        told.append(paths)
        return kernel_counts(paths, *rest, **options)

    monkeypatch.setattr(source, "kernel_counts", listening)
    masks = score(model, 700, 1, 8, 8)
    linear = resnet(1, 10, blocks=2, stem_width=4, shortcut=shortcut).double().eval()
    heard = []
    for name, layer in linear.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.zeros_(layer.bias)
            layer.weight.data = masks[f"{name}.weight"].double()
            layer.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
        elif isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0
    linear(torch.ones(1, 1, 8, 8, dtype=torch.float64))
    assert len(told) == len(heard)
    for paths, inputs in zip(told, heard, strict=True):
        expected = inputs.detach().flatten(2).sum(2) if inputs.dim() == 4 else inputs.detach()
        # The channels are told in a drawn order, and in other units.
        wanted = np.sort(expected.flatten().numpy())
        np.testing.assert_allclose(np.sort(paths) / paths.max(), wanted / wanted[-1], rtol=1e-9)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ConvTranspose2d(4, 6, 3),
        nn.ConvTranspose2d(4, 6, (3, 1), groups=2),
        nn.Conv2d(4, 6, 1),
    ],
    ids=repr,
)
def test_groups_and_transposed_convolutions(layer):
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), layer)
    for kept in (6, 17, 27):
        scores = score(model, kept, 1, 5, 5)
        assert_erk(model, kept, scores)
        parts = scores["2.weight"].flatten().chunk(layer.groups)
        assert np.ptp([int(part.sum()) for part in parts]) <= 1  # groups share alike


class Scaled(nn.Module):
    """A layer whose inputs are so many times as large, along one dimension."""

    def __init__(self, layer: nn.Module, scale: list[float], dim: int) -> None:
        super().__init__()
        self.layer, self.scale, self.dim = layer, torch.tensor(scale), dim

    def forward(self, x: Tensor) -> Tensor:
        return self.layer((x.movedim(self.dim, -1) * self.scale.to(x)).movedim(-1, self.dim))


def test_inputs_that_nothing_reaches_are_not_connected():
    model = Scaled(nn.ConvTranspose2d(4, 6, 3, bias=False), [1, 0, 1, 0], 1)
    weight = score(model, 100, 4, 5, 5)["layer.weight"]  # (inputs, outputs, 3, 3)
    assert weight.flatten(1).sum(1).tolist() == [50, 0, 50, 0]
    assert weight.flatten(2).sum(2)[[0, 2]].sum(0).min() >= 100 // 6


def test_a_linear_layer_reads_its_last_dimension():
    model = Scaled(nn.Linear(3, 5, bias=False), [0, 2, 1], -1)
    weight = score(model, 6, 7, 3, beta=0.0, alpha=0.0)["layer.weight"]
    assert weight.sum(0).tolist() == [0, 5, 1]


def test_a_layer_that_is_used_twice_is_chosen_once():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert_erk(model, 11, score(model, 11, 6))


def test_positions_within_a_kernel_and_channels_are_drawn_uniformly():
    model = nn.Conv2d(2, 2, 2, bias=False)
    often = sum(score(model, 4, 2, 5, 5, seed=seed)["weight"].double() for seed in range(200))
    # Six standard errors of a mean of 200 draws with probability 1/4.
    assert ((often / 200 - 0.25).abs() < 6 * (0.25 * 0.75 / 200) ** 0.5).all()


def test_alpha_trades_paths_for_nodes():
    model = resnet(1, 10, blocks=2, stem_width=8)
    few, many = (
        measure_topology(
            model,
            {name: s > 0 for name, s in score(model, 800, 1, 8, 8, alpha=alpha).items()},
            (1, 8, 8),
        )
        for alpha in (0.01, 0.5)
    )
    assert many.nodes > 2 * few.nodes
    assert few.log10_paths > many.log10_paths
    assert many.parameters > 0.9 * 800 > few.parameters


def test_a_layer_that_is_not_used_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    model.forward = lambda x: x
    with pytest.raises(
        InputError, match=r"npb must see every conv and linear layer called .* 0\.weight is not"
    ):
        score(model, 5, 4)


@pytest.mark.parametrize(
    "options", [{"alpha": -0.1}, {"alpha": 1.1}, {"beta": -1.0}, {"alpha": float("nan")}], ids=str
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="alpha must be from 0 to 1 and beta at least 0"):
        score(nn.Linear(4, 4), 5, 4, **options)


def test_the_weights_do_not_matter_and_are_not_changed():
    model = resnet(1, 10, blocks=1, stem_width=4)
    first = score(model, 700, 1, 8, 8)
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    assert equal(score(model, 700, 1, 8, 8), first)
