"""`sculpt.compact` of networks that write in place, return what they like, or mask their logits."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sculpt
from sculpt.arithmetic import relative_difference
from sculpt.compaction.compaction import (
    compact_where_it_pays,
    largest_difference,
    narrow_for_training,
)
from sculpt.errors import ExportError, InputError
from sculpt.graph.trace import tensors_in
from sculpt.pruning.masks import dense_masks
from sculpt.recorded_errors import find_wrong_and_close

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution and a head, and a forward pass of somebody's own."""

    def __init__(self, passes: Callable[..., object], inputs: int = 4, width: int = 4):
        super().__init__()
        self.first, self.head = nn.Conv2d(3, width, 3), nn.Linear(inputs, 5)
        self.act = nn.ReLU(inplace=True)
        self.register_buffer("off", torch.tensor([0, 1, 0, 0, 1]).bool())
        self.register_buffer("turn", torch.polar(torch.ones(4), torch.arange(4.0)))
        self.passes = passes

    def forward(self, images: Tensor, scale: Tensor | None = None) -> object:
        return self.passes(self, self.first(images), scale)


def read_twice(net, h, _):
    return net.head((net.act(h) * 2 + h).mean((2, 3)))


def by_statement(net, h, _):
    F.relu(h, inplace=True)
    more = h + 1
    more.add_(1.0)
    return net.head(more.mean((2, 3)))


def under_another_name(net, h, _):
    kept = h
    h += 1.0
    return net.head((kept + h).mean((2, 3)))


def by_an_argument_that_is_not_given(net, h, scale):
    h = h if scale is None else h * 2
    return net.head(h.relu().mean((2, 3)))


def stacked(net, h, _):
    return net.head(torch.stack([h, h * 2], 2).flatten(1, 2).relu().mean((2, 3)))


def turned(net, h, _):
    pairs = torch.view_as_complex(torch.stack([h.mean((2, 3)), h.amax((2, 3))], -1))
    return net.head(torch.view_as_real(pairs * net.turn).sum(-1))


def masked(net, h, scale):
    logits = by_an_argument_that_is_not_given(net, h, scale)
    return logits.masked_fill(net.off, -torch.inf)


def in_two(net, h, _):
    return net.head(h.mean((2, 3))).split([2, 3], 1)


def chosen(net, h, _):
    return h.mean((2, 3)).max(1)


def positive(net, h, _):
    return net.head(h.mean((2, 3))) > 0


def of_positive_inputs(net, h, _):
    return net.head((h.mean((2, 3)) + 20).log())


def with_a_number(net, h, _):
    return net.head(h.relu().mean((2, 3))), h.square().mean()


PASSES = (
    of_positive_inputs,
    with_a_number,
    read_twice,
    by_statement,
    under_another_name,
    by_an_argument_that_is_not_given,
    turned,
    masked,
    in_two,
    chosen,
    positive,
)


def pruned(net: nn.Module) -> dict[str, Tensor]:
    """Prune a channel, and return the masks."""
    masks = dense_masks(net.eval())
    masks["first.weight"][1] = masks["first.bias"][1] = False
    sculpt.apply_masks(net, masks)
    return masks


def check(net: nn.Module) -> None:
    small = sculpt.compact(net, pruned(net), IMAGES)
    with torch.no_grad():
        pairs = zip(tensors_in(net(IMAGES.clone())), tensors_in(small(IMAGES.clone())), strict=True)
        assert all(relative_difference(*pair) < 1e-5 for pair in pairs)


@pytest.mark.parametrize("passes", PASSES)
def test_it_computes_the_same(passes):
    torch.manual_seed(0)
    check(Net(passes))


def test_what_moves_a_hidden_channel_stays_whole():
    torch.manual_seed(0)
    check(Net(stacked, inputs=8))


def test_inputs_that_are_none_and_networks_that_diverged():
    net = Net(read_twice)
    masks = pruned(net)
    for given in ((IMAGES,), None, IMAGES.numpy(), IMAGES[:0], IMAGES * torch.nan):
        with pytest.raises(InputError, match="example inputs must be one tensor"):
            sculpt.compact(net, masks, given)
    net.head.weight.data[0] = torch.nan
    with pytest.raises(ExportError, match=r"some of head\.weight are not; it has diverged"):
        sculpt.compact(net, masks, IMAGES)


def test_in_inference_mode():
    torch.manual_seed(0)
    with torch.inference_mode():
        images = IMAGES.clone()
    net = Net(in_two)
    masks = pruned(net)
    with torch.inference_mode():
        assert sculpt.compact(net, masks, images)(images)[0].shape == (3, 2)


class TestRelativeDifference:
    def test_of_the_largest_that_inputs_decide(self):
        expected = torch.tensor([[1.0, -1e9, 2.0], [3.0, -1e9, 4.0]])
        found = expected + torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, 0.0]])
        assert relative_difference(expected, found) == pytest.approx(0.1)
        assert relative_difference(expected[:1], found[:1], like=expected) == pytest.approx(0.1)
        assert relative_difference(expected, expected) == 0

    def test_small_values_are_measured_as_large_ones(self):
        for dtype, size in ((torch.float64, 1e-200), (torch.float32, 1e-30)):
            expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype) * size
            assert relative_difference(expected, expected * 1.1) == pytest.approx(0.1, rel=1e-5)

    def test_infinities_and_nan(self):
        expected = torch.tensor([[1.0, -torch.inf], [2.0, -torch.inf]])
        assert relative_difference(expected, expected.clone()) == 0
        assert relative_difference(expected, expected + 0.2) == pytest.approx(0.1)
        assert relative_difference(expected, expected.nan_to_num()) == math.inf
        assert relative_difference(expected, expected * torch.nan) == math.inf
        assert relative_difference(expected, expected[:1]) == math.inf


def test_errors_are_close_by_what_is_not_masked():
    logits = torch.tensor([[1.0, 2.0, -1e9], [2.0, 1.0, -1e9], [1.0, 1.0 + 1e-7, -1e9]])
    wrong, close = find_wrong_and_close(logits, torch.tensor([1, 1, 0]), 1e-6)
    assert wrong.tolist() == [False, True, True]
    assert close.tolist() == [False, False, True]


class Streams(nn.Module):
    """Two layers of which most channels are dead, and a forward pass that asks for their types."""

    def __init__(self, asks: Callable[..., Tensor]):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)
        self.head, self.asks = nn.Linear(32, 5), asks

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(self.first(self.asks(images)).relu()).relu()
        return self.head(hidden.mean((2, 3)))


def half_dead(asks: Callable[..., Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    net = Streams(asks)
    masks = dense_masks(net)
    for name in ("first.weight", "first.bias", "second.weight", "second.bias"):
        masks[name][4:] = False
    sculpt.apply_masks(net, masks)
    return net, masks


def test_a_network_that_names_its_type_is_trained_whole():
    net, masks = half_dead(lambda images: images.float())
    found, decision = compact_where_it_pays(net, masks, IMAGES)
    assert found is None
    assert decision["used"] is False
    assert decision["reason"].startswith("a narrow copy cannot be run (RuntimeError: ")


def test_networks_that_differ_by_nan_do_not_agree():
    net, masks = half_dead(lambda images: images)
    assert compact_where_it_pays(net, masks, IMAGES)[1]["used"]
    narrow = narrow_for_training(net, masks, IMAGES)
    assert largest_difference(net, masks, narrow, IMAGES) < 1e-10
    narrow.model.network.head.weight.data.fill_(torch.nan)
    assert largest_difference(net, masks, narrow, IMAGES) == math.inf


def test_noise_that_a_network_does_not_take_is_no_measure():
    torch.manual_seed(0)
    net = Net(lambda net, h, _: net.head(h.relu().mean((2, 3))))
    roots = nn.Sequential()
    roots.first, roots.net = Root(), net
    masks = {f"net.{name}": mask for name, mask in pruned(net).items()}
    small = sculpt.compact(roots, masks, IMAGES.abs())
    with torch.no_grad():
        assert relative_difference(roots(IMAGES.abs()), small(IMAGES.abs())) < 1e-5


class Root(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.sqrt()
