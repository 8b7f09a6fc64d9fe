"""Masks move as RigL, SET and gradual magnitude pruning say, and keep a budget at every step."""

import copy

import pytest
import torch
import torch.nn.functional as F
from networks import random_masks
from torch import nn

import sculpt
from sculpt.errors import BudgetError, InputError, NumericsError
from sculpt.pruning.masks import Masks, apply_masks, dense_masks
from sculpt.pruning.moving import kept_at, move_masks, moved_fraction, shrink_masks


def sparse_network(density=0.3, dtype=torch.float64) -> tuple[nn.Module, Masks]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5)
    ).to(dtype)
    masks = random_masks(model, density)
    apply_masks(model, masks)
    return model, masks


def step(model, optimizer, seed=0):
    """Take a step on drawn images, and leave its gradients."""
    stream = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    images = torch.randn(8, 3, 4, 4, generator=stream, dtype=dtype)
    optimizer.zero_grad()
    F.cross_entropy(model(images), torch.arange(8) % 5).backward()
    optimizer.step()


def trained(optimizer_of=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), **options):
    model, masks = sparse_network(**options)
    optimizer = optimizer_of(model.parameters())
    sculpt.attach_masks(optimizer, model, masks)
    for seed in range(3):
        step(model, optimizer, seed)
    return model, masks, optimizer


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def as_rigl_says(weight, gradient, mask, fraction):
    """Evci et al. 2020, Algorithm 1, weight by weight."""
    kept = [i for i in range(mask.numel()) if mask.flatten()[i]]
    moving = min(int(fraction * len(kept)), mask.numel() - len(kept))
    kept.sort(key=lambda i: -abs(float(weight.flatten()[i])))
    staying = kept[: len(kept) - moving]
    others = [i for i in range(mask.numel()) if i not in set(staying)]
    others.sort(key=lambda i: -abs(float(gradient.flatten()[i])))
    found = torch.zeros(mask.numel(), dtype=torch.bool)
    found[staying + others[:moving]] = True
    return found.view(mask.shape)


class TestMove:
    @pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
    def test_rigl_drops_the_smallest_and_grows_by_the_gradient(self, density, fraction):
        model, masks, optimizer = trained(density=density)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        first = copy.deepcopy(masks)
        storage = {name: mask.data_ptr() for name, mask in masks.items()}
        grown = move_masks(model, masks, optimizer, fraction=fraction)
        assert storage == {name: mask.data_ptr() for name, mask in masks.items()}
        assert grown == sum(int((masks[name] & ~first[name]).sum()) for name in masks)
        for name, parameter in model.named_parameters():
            expected = as_rigl_says(before[name], gradients[name], first[name], fraction)
            assert torch.equal(masks[name], expected), name
            assert torch.equal(parameter, before[name] * (expected & first[name])), name

    def test_the_gradients_are_those_of_the_masked_network_as_a_function_of_all_weights(self):
        """Central differences in float64, at weights that are pruned."""
        model, masks, optimizer = trained()
        stream = torch.Generator().manual_seed(2)
        images = torch.randn(8, 3, 4, 4, generator=stream, dtype=torch.float64)
        labels = torch.arange(8) % 5
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        for name, parameter in model.named_parameters():
            for place in (~masks[name]).nonzero()[:4]:
                at, losses = tuple(place.tolist()), []
                for shift in (1e-5, -1e-5):
                    with torch.no_grad():
                        parameter[at] = shift
                        losses.append(F.cross_entropy(model(images), labels))
                        parameter[at] = 0
                slope = float(losses[0] - losses[1]) / 2e-5
                assert float(parameter.grad[at]) == pytest.approx(slope, rel=1e-5, abs=1e-9)

    @pytest.mark.parametrize("rule", ["rigl", "set"])
    @pytest.mark.parametrize("scope", ["layer", "global"])
    @pytest.mark.parametrize(
        "optimizer_of",
        [
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.AdamW(p, lr=0.01),
        ],
        ids=["sgd", "adamw"],
    )
    def test_the_budget_holds_and_what_moves_starts_from_zero(self, rule, scope, optimizer_of):
        model, masks, optimizer = trained(optimizer_of)
        start, first = counts(masks), copy.deepcopy(masks)
        for move in range(5):
            before = copy.deepcopy(masks)
            move_masks(model, masks, optimizer, rule=rule, scope=scope, seed=move)
            assert sum(counts(masks).values()) == sum(start.values())
            if scope == "layer":
                assert counts(masks) == start
            for name, parameter in model.named_parameters():
                moved = masks[name] != before[name]
                assert not parameter[moved].any()
                for held in optimizer.state[parameter].values():
                    if held.shape == parameter.shape:
                        assert not held[moved].any()
            step(model, optimizer, move)
            for name, parameter in model.named_parameters():
                assert not parameter[~masks[name]].any(), name
                grown = masks[name] & ~before[name]
                assert parameter[grown].any() == grown.any(), name
        assert any(not torch.equal(masks[name], first[name]) for name in masks)
        assert scope == "layer" or counts(masks) != start

    def test_set_is_random_and_follows_from_the_seed(self):
        found = []
        for seed in (0, 0, 1):
            model, masks, optimizer = trained()
            move_masks(model, masks, optimizer, rule="set", seed=seed)
            found.append(torch.cat([mask.flatten() for mask in masks.values()]))
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])

    def test_dense_and_frozen_parameters_stay(self):
        model, masks, optimizer = trained()
        model[0].weight.requires_grad_(False)
        kept = masks["0.weight"].clone()
        masks["3.weight"].fill_(True)
        move_masks(model, masks, optimizer, fraction=0.5)
        assert torch.equal(masks["0.weight"], kept)
        assert masks["3.weight"].all()

    def test_bad_arguments_change_nothing(self):
        model, masks, optimizer = trained()
        before = copy.deepcopy(masks)
        with pytest.raises(InputError, match="fraction must be from 0 to 1, but got 2"):
            move_masks(model, masks, optimizer, fraction=2)
        with pytest.raises(InputError, match="rule must be"):
            move_masks(model, masks, optimizer, rule="rig")
        optimizer.zero_grad()
        with pytest.raises(InputError, match=r"0\.weight has none; move masks before"):
            move_masks(model, masks, optimizer)
        assert all(torch.equal(masks[name], before[name]) for name in masks)

    def test_rigl_grows_by_the_gradient_whatever_the_optimiser_adds_to_it(self):
        """SGD with Nesterov's momentum adds it in place to what it steps all at once."""
        found = []
        for foreach in (True, False):
            model, masks, optimizer = trained(
                lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=foreach)  # noqa: B023
            )
            move_masks(model, masks, optimizer)
            found.append(torch.cat([mask.flatten() for mask in masks.values()]))
        assert torch.equal(*found)

    def test_gradients_that_say_nothing_are_refused(self):
        model, masks, optimizer = trained()
        before = copy.deepcopy(masks)
        model[3].weight.grad[0, 0] = torch.nan
        with pytest.raises(NumericsError, match=r"some of 3\.weight are not; leave this move out"):
            move_masks(model, masks, optimizer)
        optimizer.zero_grad(set_to_none=False)
        with pytest.raises(NumericsError, match="all are zero; move masks before"):
            move_masks(model, masks, optimizer)
        assert all(torch.equal(masks[name], before[name]) for name in masks)

    @pytest.mark.parametrize("scope", ["layer", "global"])
    def test_a_whole_layer_needs_no_gradient(self, scope):
        model, masks, optimizer = trained()
        for name in ("0.weight", "0.bias"):
            masks[name].fill_(True)
            model.get_parameter(name).grad = None
        assert move_masks(model, masks, optimizer, scope=scope)

    @pytest.mark.parametrize("scope", ["layer", "global"])
    def test_what_is_excluded_stays(self, scope):
        model, masks, optimizer = trained()
        before = copy.deepcopy(masks)
        head, rest = {"3.weight", "3.bias"}, {"0.weight", "0.bias"}
        move_masks(model, masks, optimizer, scope=scope, exclude=["3.*"])
        assert all(torch.equal(masks[name], before[name]) for name in head)
        assert not all(torch.equal(masks[name], before[name]) for name in rest)
        kept = sum(counts(masks)[name] for name in rest)
        shrink_masks(model, masks, optimizer, kept=kept - 5, scope=scope, include=["0.*"])
        assert all(torch.equal(masks[name], before[name]) for name in head)
        assert sum(counts(masks)[name] for name in rest) == kept - 5
        with pytest.raises(InputError, match=r"lists of patterns, .* but got '4"):
            move_masks(model, masks, optimizer, exclude=["4.*"])


class TestShrink:
    @pytest.mark.parametrize("scope", ["global", "layer"])
    def test_it_keeps_the_largest(self, scope):
        model, _ = sparse_network(density=1.0)
        masks = dense_masks(model)
        weights = torch.cat([p.detach().abs().flatten() for p in model.parameters()])
        assert shrink_masks(model, masks, kept=100, scope=scope) == len(weights) - 100
        assert sum(counts(masks).values()) == 100
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter != 0, masks[name])
        if scope == "global":
            kept = torch.cat([mask.flatten() for mask in masks.values()])
            assert weights[kept].min() > weights[~kept].max()
        else:
            for mask in masks.values():
                assert int(mask.sum()) == pytest.approx(100 * mask.numel() / len(weights), abs=1)

    def test_it_never_grows(self):
        model, masks = sparse_network()
        kept = sum(counts(masks).values())
        assert shrink_masks(model, masks, kept=kept) == 0
        with pytest.raises(
            BudgetError, match=f"from 0 to the {kept} they keep, but got {kept + 1}"
        ):
            shrink_masks(model, masks, kept=kept + 1)
        with pytest.raises(BudgetError, match=r"whole number of weights .* but got 100\.0"):
            shrink_masks(model, masks, kept=100.0)


def test_schedules():
    assert moved_fraction(0.4, 0, 100) == pytest.approx(0.4)
    assert moved_fraction(0.4, 50, 100) == pytest.approx(0.2)
    assert moved_fraction(0.4, 100, 100) == moved_fraction(0.4, 130, 100) == 0
    assert [kept_at(1100, 100, step, 10) for step in (0, 5, 10, 11)] == [1100, 225, 100, 100]
    assert (moved_fraction(0.4, 0, 0), kept_at(1100, 100, 0, 0)) == (0, 100)


def test_a_plain_loop_with_moving_masks():
    """As in docs/how-to/any-network.md."""
    model, masks = sparse_network(dtype=torch.float32)
    budget = sum(counts(masks).values())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sculpt.attach_masks(optimizer, model, masks)
    moved = 0
    for number in range(1, 31):
        step(model, optimizer, number)
        if number % 5 == 0 and number < 25:
            fraction = sculpt.moved_fraction(0.3, number, 25)
            moved += sculpt.move_masks(model, masks, optimizer, fraction=fraction)
        assert sum(int(p.count_nonzero()) for p in model.parameters()) <= budget
    assert moved > 0


def test_a_network_that_is_frozen_does_not_move():
    model, masks, optimizer = trained()
    model.requires_grad_(False)
    for scope in ("layer", "global"):
        assert move_masks(model, masks, optimizer, scope=scope) == 0
    assert shrink_masks(model, masks, optimizer, kept=0) == 0
