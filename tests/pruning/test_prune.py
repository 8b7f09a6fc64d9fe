"""Pruning in one call does what its parts do."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import write_trained
from networks import appearance, equal, small_resnet

from sculpt.errors import BudgetError, InputError, UnknownNameError
from sculpt.pruning.masks import count_kept, keep_highest, prunable_budget, prunable_parameters
from sculpt.pruning.prune import prune
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA, options_of

IMAGES = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 10


@pytest.mark.parametrize("counting", ["paper", "total"])
@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_the_budget_is_met_and_the_pruned_weights_are_zero(criterion, counting, tmp_path):
    model = small_resnet()
    data = {"inputs": IMAGES, "labels": LABELS}
    options: dict[str, Any] = {}
    if "rounds" in options_of(CRITERIA.get(criterion)):
        options["rounds"] = 3  # the default 100 would take seconds
    if criterion == "from_bundle":
        options["bundle"] = str(tmp_path / "trained.safetensors")
        write_trained(Path(options["bundle"]), model, prunable_budget(model, 900, counting))
    masks = prune(model, 900, criterion=criterion, counting=counting, **data, **options)
    assert count_kept(model, masks, counting) == 900
    for name, parameter in prunable_parameters(model).items():
        assert not parameter[~masks[name]].any(), name
    kept = torch.cat([model.get_parameter(name)[mask] for name, mask in masks.items()])
    assert kept.any()


def test_by_default_it_is_connection_sensitivity_without_labels():
    model = small_resnet()
    scores = CRITERIA.get("connection_sensitivity")(
        model, PruningTask(model, 900, lambda: [(IMAGES, LABELS)]), targets="uniform"
    )
    assert equal(prune(model, 900, inputs=IMAGES), keep_highest(scores, 900))


def test_options_reach_the_criterion():
    uniform, gt = (
        prune(small_resnet(), 900, inputs=IMAGES, labels=LABELS, targets=targets)
        for targets in ("uniform", "gt")
    )
    assert not equal(uniform, gt)


def test_the_batch_size_is_obeyed():
    sizes = []
    model = small_resnet()
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    prune(model, 900, inputs=IMAGES, batch_size=8)
    assert sizes == [8, 8, 4]


def test_the_seed_is_the_criterions():
    first, again, other = (
        prune(small_resnet(), 900, criterion="random", seed=seed)["stem.conv.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": 10**6}, BudgetError, "at most"),
        ({"budget": 900, "criterion": "snip"}, UnknownNameError, "'snip'"),
        ({"budget": 900, "labels": LABELS[:7]}, InputError, "7 labels for 20 inputs"),
        ({"budget": 900, "inputs": None}, InputError, "at least one image"),
        ({"budget": 900, "targets": "labels"}, InputError, "'labels'"),
        ({"budget": 900, "targets": "gt"}, InputError, "with the labels of the inputs"),
    ],
    ids=["budget", "criterion", "labels", "inputs", "targets", "no labels"],
)
def test_a_refusal_changes_nothing(options, error, message):
    model = small_resnet()
    before = appearance(model)
    with pytest.raises(error, match=message):
        prune(model, **({"inputs": IMAGES} | options))
    assert appearance(model) == before


def test_scores_are_computed_in_float32_proper(monkeypatch):
    entered = []

    @contextmanager
    def watched(precision, device):
        entered.append((precision, device.type))
        yield
        entered.append("left")

    module = sys.modules["sculpt.pruning.prune"]
    monkeypatch.setattr(module, "float32_products", watched)
    model = small_resnet()
    model.register_forward_pre_hook(lambda *_: entered.append("forward"))
    prune(model, 900, inputs=IMAGES)
    assert entered == [("float32", "cpu"), "forward", "left"]
