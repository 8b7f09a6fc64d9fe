"""Where the channels of results come from, found by moving numbers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sculpt.graph.carrying import Carrying, ChannelReader, first_axis
from sculpt.graph.trace import plain_type, trace


def read(network: nn.Module, shape: tuple[int, ...]) -> Carrying | None:
    """Read the last call of a network; its results have channels where they are understood."""
    graph = trace(network, shape)
    reader = ChannelReader(dict(network.named_modules()))
    found = None
    for node in graph.nodes:
        if node.op == "placeholder":
            reader.axes[node] = first_axis(node.meta["size"])
        elif node.op != "output":
            found = reader.read(node)
            if found:
                reader.axes[node] = found.axis
    return found


class Moved(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def shuffle(x: Tensor) -> Tensor:
    count, channels, height, width = x.size()
    return x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    ("function", "carried", "axis", "flags"),
    [
        (lambda x: x.chunk(2, 1)[1], [2, 3], -3, "selects"),
        (shuffle, [0, 2, 1, 3], -3, "selects"),
        (lambda x: x.view(x.size(0), -1), np.arange(4).repeat(6), -1, "flattens any_width"),
        (lambda x: x.reshape(2, 24), np.arange(4).repeat(6), -1, "flattens"),
        (lambda x: x.permute(0, 2, 3, 1), [0, 1, 2, 3], -1, "any_width"),
        (lambda x: x.flatten(2).transpose(1, 2), [0, 1, 2, 3], -1, "any_width"),
        (lambda x: x.flip(3)[:, :, 0], None, None, ""),
        (lambda x: x.transpose(2, 3), [0, 1, 2, 3], -3, "any_width"),
        (lambda x: x[:, :, :1].squeeze(), [0, 1, 2, 3], -2, ""),
        (lambda x: x.transpose(0, 1), None, None, ""),
        (lambda x: x.flatten(0, 1), None, None, ""),
        (lambda x: x.view(-1, 2, 2, 2, 3), None, None, ""),
        (lambda x: x.mean((2, 3)), [0, 1, 2, 3], -1, "any_width"),
        (lambda x: x.mean(1), None, None, ""),
        (lambda x: x * x.amax((2, 3), keepdim=True), [0, 1, 2, 3], -3, "product any_width"),
        (lambda x: torch.softmax(x, 1), None, None, ""),
        (lambda x: x + 1, [0, 1, 2, 3], -3, "any_width"),
    ],
)
def test_where_the_channels_come_from(function, carried, axis, flags):
    found = read(Moved(function), (4, 2, 3))
    if carried is None:
        assert found is None
        return
    assert [list(one) for one in found.carried] == [list(carried)] * len(found.sources)
    assert found.axis == axis
    names = ("product", "selects", "flattens", "any_width")
    assert {name for name in names if getattr(found, name)} == set(flags.split())


def test_of_a_concatenation_each_channel_has_one_source():
    found = read(Moved(lambda x: torch.cat([x, x[:, 2:]], 1)), (4, 2, 3))
    assert [list(one) for one in found.carried] == [[0, 1, 2, 3, -1, -1], [-1, -1, -1, -1, 0, 1]]
    assert found.any_width


class Named(nn.Conv2d):
    """A layer of another name."""


class Standardised(nn.Conv2d):
    """A layer that does something else."""

    def _conv_forward(self, images, weight, bias):
        return super()._conv_forward(images, weight - weight.mean(), bias)


def test_a_layer_of_another_name_is_one_and_one_that_changes_a_method_is_not():
    assert plain_type(Named(1, 1, 1)) is nn.Conv2d
    assert plain_type(Standardised(1, 1, 1)) is Standardised
    assert plain_type(nn.ReLU6()) is nn.ReLU6
    assert plain_type(Moved(shuffle)) is Moved
    targets = [
        [node.op for node in trace(nn.Sequential(kind(1, 1, 1)), (1, 2, 2)).nodes]
        for kind in (Named, Standardised)
    ]
    assert targets[0] == ["placeholder", "call_module", "output"]
    assert "get_attr" in targets[1]
