"""Removing from a program what no path uses: exact, and nothing is left that could go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_lowering import FAMILIES, trained_like
from torch import Tensor, nn

from sculpt.errors import ExportError
from sculpt.export.condensing import certify, condense, find_values
from sculpt.export.lowering import lower
from sculpt.export.program import Channels, Conv, Linear, Program
from sculpt.models import build_network
from sculpt.pruning.masks import Masks, apply_masks, dense_masks


def condensed(model: nn.Module, masks: Masks, shape: tuple[int, ...]) -> Program:
    """Return the condensed program of a network, certified on random images."""
    images = torch.randn(3, *shape)
    program = condense(lower(model, masks, images))
    certify(model, masks, program, images)
    return program


def widths(program: Program) -> list[int]:
    return [operation.shape[0] for operation in program.operations]


@pytest.mark.parametrize("density", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(("name", "options", "shape"), FAMILIES)
def test_exact_for_every_family(name, options, shape, density):
    pixels = shape[1] * shape[2]
    model = build_network(name, channels=shape[0], classes=7, pixels=pixels, **options)
    masks = trained_like(model, shape, density)
    wide = lower(model, masks, torch.zeros(1, *shape))
    program = condensed(model, masks, shape)
    assert program.macs(dense=True) <= wide.macs(dense=True)
    assert program.classes == 7
    assert program.input_shape == shape
    if density == 0.01:
        assert program.macs(dense=True) < 0.9 * wide.macs(dense=True)


def chain(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).double()


def test_dead_channels_go_and_their_constants_become_biases():
    # Without padding: what a row without weights gives is its bias, everywhere.
    model = chain(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.Flatten(), nn.Linear(20, 3))
    masks = dense_masks(model)
    masks["0.weight"][[1, 2]] = False
    masks["2.weight"][[0]] = False
    apply_masks(model, masks)
    program = condensed(model, masks, (1, 5, 5))
    assert [layer.weight.shape[:2] for layer in program.layers()] == [(2, 1), (4, 2), (3, 16)]


@pytest.mark.parametrize(
    ("activation", "rows", "columns", "left"),
    [
        (nn.Tanh(), [], [0, 2, 3, 5], 2),  # what is never read goes
        (nn.Tanh(), [0, 2, 3, 5], [], 3),  # of constants that padding cuts off one stays
        (nn.ReLU(), [0, 2, 3], [], 3),  # and none where they are zero
    ],
    ids=["unread", "constants", "zeros"],
)
def test_behind_padding(activation, rows, columns, left):
    layers = [nn.Conv2d(1, 6, 3, padding=1), activation, nn.Conv2d(6, 2, 3, padding=1)]
    model = chain(*layers, nn.Flatten())
    masks = dense_masks(model)
    masks["0.weight"][rows] = False
    masks["2.weight"][:, columns] = False
    apply_masks(model, masks)
    if isinstance(activation, nn.ReLU):
        model[0].bias.data[rows] = torch.tensor([-1.0, 0.0, -3.0], dtype=torch.float64)
    first, second = condensed(model, masks, (1, 5, 5)).layers()
    assert first.weight.shape[0] == second.weight.shape[1] == left
    constants = [bool(row.any()) for row in first.weight].count(False)
    assert constants == (1 if rows and isinstance(activation, nn.Tanh) else 0)


class Stream(nn.Module):
    """Two residual blocks on one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.one = nn.Conv2d(6, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + torch.relu(self.one(x))
        x = x + torch.relu(self.two(x))
        return self.last(x.mean((2, 3)))


def test_a_stream_loses_a_channel_only_everywhere():
    torch.manual_seed(0)
    model = Stream().double()
    masks = dense_masks(model)
    for name in ("stem", "one", "two"):
        masks[f"{name}.weight"][[2, 4]] = False
    masks["stem.weight"][1] = False  # channel 1 begins with block one
    for name in ("one.weight", "two.weight"):
        masks[name][:, 5] = False
    masks["last.weight"][:, 5] = False  # and channel 5 is never read
    apply_masks(model, masks)
    with torch.no_grad():
        for layer in (model.stem, model.one, model.two):
            layer.bias[4] = 0  # channel 4 is zero, channel 2 a constant
    program = condensed(model, masks, (1, 6, 6))
    kept = {len(layer.weight) for layer in program.layers() if isinstance(layer, Conv)}
    assert kept == {4}, "0, 1, 3, and the constant 2"


def test_without_a_path_the_logits_are_constants():
    model = build_network("resnet", channels=1, classes=3, pixels=64, blocks=1, stem_width=4)
    masks = trained_like(model, (1, 8, 8))
    masks["stages.1.0.first.conv.weight"][:] = False
    masks["stages.2.0.first.conv.weight"][:] = False
    masks["stages.2.0.second.conv.weight"][:] = False
    masks["classifier.weight"][:] = False
    apply_masks(model, masks)
    program = condensed(model, masks, (1, 8, 8))
    assert not find_values(program)[-1].alive.any()
    assert program.macs(dense=False) == 0
    assert max(widths(program)[1:-1]) <= 4, "hardly anything is left"


def test_a_second_time_nothing_goes():
    model = build_network("resnet", channels=3, classes=5, pixels=256, widening=2, blocks=1)
    masks = trained_like(model, (3, 16, 16), 0.01)
    program = condensed(model, masks, (3, 16, 16))
    assert widths(condense(program)) == widths(program)
    assert any(isinstance(operation, Channels) for operation in program.operations)


def test_a_wrong_program_is_refused():
    model = build_network("mlp", channels=1, classes=3, pixels=64)
    masks = trained_like(model, (1, 8, 8))
    program = condensed(model, masks, (1, 8, 8))
    last = program.operations[-1]
    assert isinstance(last, Linear)
    for wrong in (last.bias + 1e-6, np.full(3, np.nan)):
        other = Program((*program.operations[:-1], replace(last, bias=wrong)))
        with pytest.raises(ExportError, match="must compute what the network does"):
            certify(model, masks, other, torch.randn(2, 1, 8, 8))
