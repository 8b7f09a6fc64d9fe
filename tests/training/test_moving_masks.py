"""Training with masks that move: the budget at every step, and the mask that comes out of it."""

import copy

import pytest
import torch
from small_training import make_network, recipe

from sculpt.training import trainer as trainer_module
from sculpt.training.loop import train
from sculpt.training.loss_and_error import evaluate


def kept(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def settings(rule, **moving):
    moving = {"rule": rule, "every": 2, "until": 0.8, "fraction": 0.5} | moving
    return recipe(epochs=5, momentum=0.9, moving=moving)


@pytest.mark.parametrize("rule", ["rigl", "set"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_budget_holds_at_every_step(splits, rule, scope):
    model, masks = make_network(density=0.4)
    first = copy.deepcopy(masks)
    budget = sum(kept(masks).values())
    alive = []
    model.register_forward_pre_hook(
        lambda module, _: alive.append(
            sum(int(dict(module.named_parameters())[name].count_nonzero()) for name in masks)
        )
    )
    trained = train(model, masks, splits, settings(rule, scope=scope), seed=0, budget=budget)
    assert max(alive) <= budget
    assert kept(masks) == kept(first)  # those given are only read
    assert all(torch.equal(masks[name], first[name]) for name in masks)
    assert sum(kept(trained.masks).values()) == budget
    assert trained.moved > 0
    if scope == "layer":
        assert kept(trained.masks) == kept(masks)
    for name, parameter in model.named_parameters():
        if name in masks:
            assert not parameter[~trained.masks[name]].any(), name


def test_gradual_magnitude_goes_from_dense_to_the_budget(splits, monkeypatch):
    model, masks = make_network()
    total = sum(mask.numel() for mask in masks.values())
    asked, shrink = [], trainer_module.shrink_masks

    def listen(model, masks, *rest, kept, **options):
        asked.append(kept)
        return shrink(model, masks, *rest, kept=kept, **options)

    monkeypatch.setattr(trainer_module, "shrink_masks", listen)
    trained = train(model, masks, splits, settings("gradual_magnitude"), seed=0, budget=total // 4)
    steps = [2, 4, 6, 8, 10, 12]
    cubic = [total // 4 + round((total - total // 4) * (1 - step / 12) ** 3) for step in steps]
    assert asked == [*cubic, total // 4]  # the last one only makes sure
    assert sum(kept(trained.masks).values()) == total // 4
    assert sum(int(p.count_nonzero()) for p in model.parameters()) > 0
    for name, parameter in model.named_parameters():
        if name in masks:
            assert not parameter[~trained.masks[name]].any(), name


def test_gradual_magnitude_meets_its_budget_where_training_breaks_off(splits):
    model, masks = make_network()
    broken = settings("gradual_magnitude").model_copy(update={"learning_rate": 1e25})
    trained = train(model, masks, splits, broken, seed=0, budget=300)
    assert trained.diverged
    assert sum(kept(trained.masks).values()) == 300
    assert trained.history[-1].val_error == evaluate(model, splits.validation)[1]


@pytest.mark.parametrize(
    "moving", [{"until": 0.01}, {"every": 1000, "until": 0.3}, {"every": 1000}]
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_the_error_is_that_of_the_sparse_network_however_few_the_steps(splits, moving, epochs):
    model, masks = make_network()
    few = settings("gradual_magnitude", **moving).model_copy(update={"epochs": epochs})
    trained = train(model, masks, splits, few, seed=0, budget=150)
    assert sum(int(p.count_nonzero()) for n, p in model.named_parameters() if n in masks) <= 150
    assert sum(kept(trained.masks).values()) == 150
    assert trained.history[-1].val_error == evaluate(model, splits.validation)[1]


def test_masks_stay_after_the_last_move(splits):
    model, masks = make_network(density=0.4)
    found = []
    for until in (0.3, 1.0):
        model, masks = make_network(density=0.4)
        budget = sum(kept(masks).values())
        found.append(
            train(model, masks, splits, settings("set", until=until), seed=0, budget=budget)
        )
    assert 0 < found[0].moved < found[1].moved


def test_clipping_by_the_sparse_norm_leaves_the_gradients_that_masks_grow_by(splits):
    model, masks = make_network(density=0.4)
    clipped = settings("rigl").model_copy(update={"max_gradient_norm": 0.1})
    budget = sum(kept(masks).values())
    trained = train(model, masks, splits, clipped, seed=0, budget=budget)
    assert trained.moved > 0
