"""Shuffled masks keep the layers' counts, and nothing else of the mask."""

import warnings
from typing import Any

import pytest
import torch
from networks import normal
from torch import Tensor, nn

import sculpt
from sculpt.errors import InputError, SculptWarning, UnknownNameError
from sculpt.pruning.criteria.magnitude import magnitude
from sculpt.pruning.criteria.shuffled import shuffled
from sculpt.pruning.mask_rule import MaskRule
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


def network() -> nn.Module:
    model = normal(nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5)), std=1)
    model[2].weight.data.mul_(2)
    return model


def make_task(model: nn.Module, seed: int = 0, **more: Any) -> PruningTask:
    images = torch.randn(8, 20, generator=torch.Generator().manual_seed(1))
    return PruningTask(
        model,
        200,
        lambda: [(images, torch.arange(8) % 5)],
        torch.Generator().manual_seed(seed),
        **more,
    )


def counts(scores: dict[str, Tensor]) -> dict[str, int]:
    return {name: int(tensor.count_nonzero()) for name, tensor in scores.items()}


@pytest.mark.parametrize("rule", [MaskRule(), MaskRule(scope="layer")], ids=str)
def test_counts_stay_and_positions_move(rule):
    model = network()
    task = make_task(model, rule=rule)
    masks = task.select(magnitude(model, task))
    scores = shuffled(model, task, of="magnitude")
    assert counts(scores) == counts(masks)
    for name, mask in masks.items():
        if mask.dim() > 1:
            moved = int(((scores[name] > 0) & ~mask).sum())
            # As many new positions as independent ones would have, within half of that.
            expected = int(mask.sum()) * int((~mask).sum()) / mask.numel()
            assert abs(moved - expected) < expected / 2, name


def test_every_position_is_as_likely():
    model = network()
    often = torch.zeros(5, 30)
    for seed in range(600):
        often += shuffled(model, make_task(model, seed), of="magnitude")["2.weight"]
    density = float(often.mean()) / 600
    # Six standard errors of a mean of 600 draws.
    assert ((often / 600 - density).abs() < 6 * (density * (1 - density) / 600) ** 0.5).all()


def test_the_default_is_connection_sensitivity_and_its_options_arrive():
    model = network()
    criterion = CRITERIA.get("connection_sensitivity")

    def counts_of(**options: Any) -> dict[str, int]:
        task = make_task(model)
        return counts(task.select(criterion(model, task, **options)))

    default = counts(shuffled(model, make_task(model)))
    labelled = counts(shuffled(model, make_task(model), of_options={"targets": "gt"}))
    assert default == counts_of()
    assert labelled == counts_of(targets="gt")
    assert default != labelled


@pytest.mark.parametrize(
    ("of", "options", "message"),
    [
        ("snip", {}, r"criterion must be one of .* but got 'snip'"),
        ("shuffled", {}, "must be another criterion than 'shuffled'"),
        (
            "grasp",
            {"loss": 1},
            r"of grasp \(targets, temperature, batch_norm, precision\), but got 'loss'",
        ),
        ("random", {"model": 1}, r"options of random \(it has none\), but got 'model'"),
    ],
)
def test_what_cannot_be_shuffled_is_refused(of, options, message):
    model = network()
    with pytest.raises((InputError, UnknownNameError), match=message):
        shuffled(model, make_task(model), of=of, of_options=options)


@pytest.mark.parametrize(
    "rule",
    [
        {"effective": True},
        {"granularity": "kernel"},
        {"granularity": "channel"},
        {"granularity": "kernel", "scope": "layer"},
        {"mac_exponent": 0.5},
        {"layer_budgets": "erk"},
    ],
    ids=str,
)
def test_layers_keep_as_many_weights_whatever_the_rule(rule):
    torch.manual_seed(0)
    inputs, found = torch.randn(8, 3, 8, 8), []
    for criterion in ("connection_sensitivity", "shuffled"):
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SculptWarning)  # of what groups leave
            found.append(sculpt.prune(model, 1100, criterion=criterion, inputs=inputs, **rule))
    own, shuffled_masks = found
    for name, mask in own.items():
        assert int(mask.sum()) == int(shuffled_masks[name].sum()), name
        if rule.get("granularity") == "kernel" and mask.dim() == 4:
            whole = shuffled_masks[name].flatten(2).float().mean(2)
            assert ((whole == 0) | (whole == 1)).all()
    assert any(not torch.equal(own[name], shuffled_masks[name]) for name in own)
