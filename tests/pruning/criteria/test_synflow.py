"""SynFlow: its conservation laws, an independent reference, range, and random rounds."""

import itertools
import math
from typing import Any

import pytest
import torch
from networks import equal, normal
from torch import Tensor, nn

from sculpt.errors import InputError, NumericsError
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet
from sculpt.pruning.criteria import synflow as source
from sculpt.pruning.criteria.synflow import synflow, synflow_random_rounds
from sculpt.pruning.masks import keep_highest
from sculpt.pruning.task import PruningTask


def mlp(bias: bool = False) -> nn.Module:
    sizes, activations = [(6, 8), (8, 7), (7, 4)], [nn.Tanh(), nn.SELU(), nn.Identity()]
    layers = [nn.Linear(*size, bias=bias) for size in sizes]
    return normal(nn.Sequential(*itertools.chain(*zip(layers, activations, strict=True))), seed=3)


def one_shot(model: nn.Module, *shape: int) -> dict[str, Tensor]:
    return synflow(model, PruningTask(model, 10, input_shape=shape), rounds=1)


def test_each_layer_carries_the_whole_flow():
    """Network-wise conservation (Theorem 2), with convolutions, pooling and norms between."""
    norm = nn.BatchNorm2d(3)
    first = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    second = nn.Conv2d(3, 6, 3, groups=3, bias=False)
    head = [nn.Linear(6, 5, bias=False), nn.Dropout(0.5), nn.Linear(5, 4, bias=False)]
    body = [first, norm, nn.ReLU(), nn.MaxPool2d(2), second, nn.LeakyReLU(), nn.AvgPool2d(2)]
    model = normal(nn.Sequential(*body, nn.Flatten(), *head), seed=3)
    norm.running_mean.fill_(3.0)
    for name, scores in one_shot(model, 2, 8, 8).items():
        assert scores.dtype == torch.float64
        assert float(scores.sum()) == pytest.approx(1, rel=1e-12), name


@pytest.mark.parametrize("bias", [False, True])
def test_what_flows_into_a_hidden_unit_flows_out_of_it(bias):
    """Neuron-wise conservation (Theorem 1)."""
    scores = one_shot(mlp(bias), 6)
    for before, after in (("0", "2"), ("2", "4")):
        inflow = scores[f"{before}.weight"].sum(1)
        if bias:
            inflow = inflow + scores[f"{before}.bias"]
        torch.testing.assert_close(inflow, scores[f"{after}.weight"].sum(0), rtol=1e-12, atol=0)


def test_a_residual_streams_flow_divides_between_branch_and_shortcut():
    """And the two convolutions of a branch carry the same share of it, below all of it."""
    model = resnet(1, 4, blocks=1, stem_width=3, conv_bias=False)
    nn.init.zeros_(model.classifier.bias)
    scores = one_shot(model, 1, 8, 8)
    assert float(scores["stem.conv.weight"].sum()) == pytest.approx(1, rel=1e-12)
    assert float(scores["classifier.weight"].sum()) == pytest.approx(1, rel=1e-12)
    for stage in range(3):
        first, second = (
            float(scores[f"stages.{stage}.0.{place}.conv.weight"].sum())
            for place in ("first", "second")
        )
        assert first == pytest.approx(second, rel=1e-12)
        assert 0.01 < first < 0.99


def reference(weights: list[Tensor], kept: int, rounds: int) -> list[Tensor]:
    """Return scores of a bias-free MLP by multiplying matrices, without autograd."""
    first, second, third = (w.detach().double().abs() for w in weights)
    total = first.numel() + second.numel() + third.numel()
    for current in range(1, rounds + 1):
        a1 = first.sum(1)
        a2 = second @ a1
        b2 = third.sum(0)
        b1 = second.T @ b2
        flow = b2 @ a2
        scores = [
            first * b1[:, None] / flow,
            second * torch.outer(b2, a1) / flow,
            third * a2 / flow,
        ]
        if current < rounds:
            flat = torch.cat([s.flatten() for s in scores])
            left = round(total * (kept / total) ** (current / rounds))
            lowest = flat.sort(descending=True).values[left - 1]
            first, second, third = (
                w * (s >= lowest) for w, s in zip((first, second, third), scores, strict=True)
            )
    return scores


@pytest.mark.parametrize("rounds", [1, 2, 7, 30])
def test_rounds_are_those_of_a_reference(rounds):
    model = mlp()
    scores = synflow(model, PruningTask(model, 20, input_shape=(6,)), rounds=rounds)
    expected = reference(list(model.parameters()), 20, rounds)
    for (name, tensor), other in zip(scores.items(), expected, strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-10, atol=0, msg=name)


def test_scores_of_the_widest_resnet_are_finite():
    model = resnet(3, 10, widening=8, blocks=3)
    scores = one_shot(model, 3, 4, 4)
    for name, tensor in scores.items():
        assert tensor.isfinite().all(), name
    assert float(scores["classifier.weight"].sum()) == pytest.approx(1, abs=0.1)  # less a bias


@pytest.mark.parametrize("factor", [1e18, 1e-18])
@pytest.mark.parametrize("bias", [False, True])
def test_a_flow_that_float64_cannot_hold_ranks_as_one_that_it_can(factor, bias):
    """20 layers: a flow of 10^±360. It scales, and with it the first layer's bias."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4, bias=bias)
            self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(21))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for position, layer in enumerate(self.layers):
                x = x + layer(x) if position == 10 else layer(x)
            return x

    model = normal(Residual().double(), seed=3)
    expected = one_shot(model, 4)
    with torch.no_grad():
        for position, layer in enumerate(model.layers):
            # A branch that grew would outweigh the shortcut beside it.
            layer.weight.mul_(1 if position == 10 else factor)
    for name, scores in one_shot(model, 4).items():
        torch.testing.assert_close(scores, expected[name], rtol=1e-9, atol=0, msg=name)


def test_a_network_without_any_path_scores_0():
    model = mlp()
    nn.init.zeros_(model[2].weight)
    assert not any(scores.any() for scores in one_shot(model, 6).values())


def test_a_weight_that_is_not_finite_is_refused():
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    with pytest.raises(NumericsError, match=r"must fit into float64.*nan"):
        one_shot(model, 6)


def random_rounds(model: nn.Module, seed: int = 0, **options: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return synflow_random_rounds(
        model, PruningTask(model, 20, generator=generator, input_shape=(6,)), **options
    )


def test_without_random_rounds_it_is_synflow():
    model = mlp()
    expected = synflow(model, PruningTask(model, 20, input_shape=(6,)), rounds=10)
    for options in ({"last_random_round": 0}, {"interval": 10}, {"interval": 11}):
        scores = random_rounds(model, rounds=10, **options)
        assert equal(scores, expected), options


def test_random_rounds_are_where_they_are_asked_for(monkeypatch):
    """Every third round up to round 7: rounds 3 and 6, and never the last one."""
    seen: list[str] = []
    flow, drawn = source.FlowScore.__call__, source._random_scores

    def watched_flow(self: source.FlowScore) -> dict[str, Tensor]:
        seen.append("flow")
        return flow(self)

    def watched_draw(*arguments: Any) -> dict[str, Tensor]:
        seen.append("random")
        return drawn(*arguments)

    monkeypatch.setattr(source.FlowScore, "__call__", watched_flow)
    monkeypatch.setattr(source, "_random_scores", watched_draw)
    random_rounds(mlp(), rounds=9, interval=3, last_random_round=7)
    assert [current for current, kind in enumerate(seen, 1) if kind == "random"] == [3, 6]
    assert len(seen) == 9
    seen.clear()
    random_rounds(mlp(), rounds=3, interval=1, last_random_round=99)
    assert seen == ["random", "random", "flow"]


def test_a_random_round_changes_the_mask_and_the_seed_decides_how():
    model, options = mlp(), {"rounds": 10, "interval": 2, "last_random_round": 8}
    drawn = [random_rounds(model, seed, **options) for seed in (0, 0, 1)]
    plain = random_rounds(model, rounds=10, last_random_round=0)
    first, again, other, without = (keep_highest(scores, 20) for scores in [*drawn, plain])
    assert equal(first, again)
    assert not equal(first, other)
    assert not equal(first, without)


def test_random_rounds_keep_more_nodes():
    """What the node-path paper makes them for."""
    model = resnet(1, 10, blocks=1, stem_width=4)
    initialize(model, "ldi", seed=0)

    def nodes(last: int) -> int:
        task = PruningTask(model, 200, input_shape=(1, 8, 8))
        scores = synflow_random_rounds(model, task, rounds=30, interval=1, last_random_round=last)
        masks = keep_highest(scores, 200)
        return sum(int(m.flatten(1).any(1).sum()) for m in masks.values() if m.dim() > 1)

    assert nodes(20) > nodes(0) + 5


@pytest.mark.parametrize(
    "options", [{"interval": 0}, {"last_random_round": -1}], ids=["interval", "last"]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="interval must be at least 1 and last_random_round"):
        random_rounds(mlp(), **options)


def test_batch_norms_state_does_not_matter():
    model = resnet(1, 4, blocks=1, stem_width=3)
    expected = one_shot(model, 1, 8, 8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in module.state_dict().values():
                tensor.fill_(7)
    assert equal(one_shot(model, 1, 8, 8), expected)
