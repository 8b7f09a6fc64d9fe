"""Budgets are met exactly, whatever the ties, and counted under a stated rule."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from networks import appearance, count, random_masks
from torch import Tensor, nn

from sculpt.errors import BudgetError, DryRankingError, InputError, NumericsError
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import (
    apply_masks,
    count_kept,
    count_parameters,
    dense_masks,
    keep_highest,
    prunable_budget,
    prunable_parameters,
)


def stable_sort_oracle(scores: Mapping[str, Tensor], kept: int) -> list[bool]:
    """Sort all (score, position) pairs: the highest first, of equal scores the earliest."""
    flat = [value for score in scores.values() for value in score.flatten().tolist()]
    ranking = sorted(range(len(flat)), key=lambda position: -flat[position])
    chosen = set(ranking[:kept])
    return [position in chosen for position in range(len(flat))]


def small_network() -> nn.Module:
    """24 + 4 conv, 8 batch-norm and 12 + 3 linear parameters."""
    return nn.Sequential(
        nn.Conv2d(6, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )


class TestKeepHighest:
    @pytest.mark.parametrize("seed", range(60))
    def test_random_cases_against_a_stable_sort(self, seed):
        random = np.random.default_rng(seed)
        largest = 5 if seed else 30  # of the first, some 40,000 scores
        scores = {}
        for name in "zacbd"[: random.integers(1, 6)]:
            shape = tuple(random.integers(0 if seed else 20, largest, size=random.integers(0, 5)))
            # From one value (all ties) to a continuum (none), and negative ones.
            levels = random.choice([1, 2, 3, 10, 10**6])
            values = random.integers(1, levels + 1, size=shape) * random.choice([-1, 1, 0.1])
            scores[name] = torch.tensor(values, dtype=torch.float32)
        size = sum(score.numel() for score in scores.values())
        before = {name: score.clone() for name, score in scores.items()}
        for kept in {0, 1, size // 3, size // 2, size - 1, size, int(random.integers(0, size + 1))}:
            if 0 <= kept <= size:
                masks = keep_highest(scores, kept)
                chosen = [keep for mask in masks.values() for keep in mask.flatten().tolist()]
                assert chosen == stable_sort_oracle(scores, kept), kept
                assert list(masks) == list(scores)
                for name, mask in masks.items():
                    assert (mask.dtype, mask.shape) == (torch.bool, scores[name].shape)
                    mask.fill_(True)  # it is a tensor of its own
                    assert torch.equal(scores[name], before[name])

    def test_neighbouring_floats_are_told_apart(self):
        one = torch.tensor(1.0)
        above = torch.nextafter(one, torch.tensor(2.0))
        masks = keep_highest({"a": torch.stack([one, one, above, one])}, 1)
        assert masks["a"].tolist() == [False, False, True, False]

    def test_zeros_are_no_ranking(self):
        scores = {
            "conv.weight": torch.tensor([0.5, 0.0, 0.3, 0.2]),
            "conv.bias": torch.zeros(2),
            "dead.weight": torch.zeros(2, 2),
        }
        assert count(keep_highest(scores, 3)) == 3
        with pytest.raises(DryRankingError) as refusal:
            keep_highest(scores, 4)
        message = str(refusal.value)
        assert "at least 4 scores must be non-zero" in message
        assert "only 3 of 10 are (all zero in: conv.bias, dead.weight)" in message
        assert "a smaller budget" in message
        with pytest.raises(DryRankingError, match="all zero in: none"):
            keep_highest({"a": torch.tensor([1.0, 0.0, 0.0])}, 2)

    def test_keeping_everything_needs_no_ranking(self):
        assert count(keep_highest({"a": torch.zeros(3), "b": torch.ones(2)}, 5)) == 5

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_a_score_that_is_not_finite_is_named(self, bad):
        scores = {"stem.weight": torch.rand(3, 2), "classifier.weight": torch.rand(4)}
        scores["classifier.weight"][[1, 2]] = bad
        with pytest.raises(NumericsError, match=r"2 of 4 scores of classifier\.weight are not"):
            keep_highest(scores, 3)

    @pytest.mark.parametrize("kept", [-1, 7])
    def test_a_count_out_of_range_is_refused(self, kept):
        with pytest.raises(BudgetError, match=f"from 0 to 6, but got {kept}"):
            keep_highest({"a": torch.ones(2, 3)}, kept)


class TestCounting:
    def test_prunable_are_weights_and_biases_of_conv_and_linear_layers(self):
        model = small_network()
        parameters = prunable_parameters(model)
        assert list(parameters) == ["0.weight", "0.bias", "3.2.weight", "3.2.bias"]
        named = dict(model.named_parameters())
        assert all(parameters[name] is named[name] for name in parameters)

    def test_a_layer_by_itself_is_a_network(self):
        assert list(prunable_parameters(nn.Linear(2, 3))) == ["weight", "bias"]
        assert list(prunable_parameters(nn.Conv1d(2, 3, 1, bias=False))) == ["weight"]

    def test_a_network_without_such_layers_is_refused(self):
        with pytest.raises(InputError, match=r"convolution or linear.*but ReLU has none"):
            prunable_parameters(nn.ReLU())

    def test_the_rules_of_what_there_is_and_what_is_kept(self):
        model = small_network()
        masks = dense_masks(model)
        for pruned in (0, 13):
            if pruned:
                masks["0.weight"][:2] = False
                masks["3.2.bias"][0] = False
            assert count_kept(model, masks, "paper") == 28 + 15 - pruned
            assert count_kept(model, masks, "total") == 28 + 8 + 15 - pruned
        assert count_parameters(model, "paper") == 28 + 15
        assert count_parameters(model, "total") == 28 + 8 + 15
        model[1].requires_grad_(False)
        assert count_parameters(model, "total") == 43, "what is frozen is not trainable"

    @pytest.mark.parametrize("counting", ["paper", "total"])
    def test_the_budget_comes_out_exactly_under_its_own_rule(self, counting):
        model = resnet(1, 10, blocks=1, stem_width=4)
        scores = {name: torch.rand(p.shape) + 1 for name, p in prunable_parameters(model).items()}
        never_pruned = count_parameters(model, "total") - count_parameters(model, "paper")
        assert never_pruned == 2 * (4 + 2 * (4 + 8 + 16))
        masks = keep_highest(scores, prunable_budget(model, 1000, counting))
        assert count_kept(model, masks, counting) == 1000
        assert count(masks) == 1000 - (never_pruned if counting == "total" else 0)

    @pytest.mark.parametrize(
        ("counting", "lowest", "highest"), [("paper", 1, 43), ("total", 9, 51)]
    )
    def test_budgets_out_of_range_are_refused(self, counting, lowest, highest):
        model = small_network()
        assert prunable_budget(model, lowest, counting) == 1
        assert prunable_budget(model, highest, counting) == 43
        for budget in (lowest - 1, highest + 1, -5):
            with pytest.raises(BudgetError) as refusal:
                prunable_budget(model, budget, counting)
            message = str(refusal.value)
            assert f"above {lowest - 1} " in message
            assert f"at most {highest} (the dense network, counting rule {counting!r})" in message
            assert f"but got {budget};" in message


class TestApplyMasks:
    def test_pruned_weights_become_zero_and_the_others_stay(self):
        model = small_network()
        masks = random_masks(model, 0.5)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        parameters = dict(model.named_parameters())
        apply_masks(model, masks)
        for name, parameter in model.named_parameters():
            assert parameter is parameters[name]
            assert parameter.requires_grad
            assert parameter.is_leaf
            mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
            assert torch.equal(parameter[mask], before[name][mask]), name
            assert not parameter[~mask].any(), name

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("3.2.weight", lambda mask: None, r"only one of the two: 3\.2\.weight, head\.weight"),
            ("3.2.weight", lambda mask: mask.float(), r"3\.2\.weight must be bool.*torch\.float32"),
            ("3.2.weight", lambda mask: mask.T, r"bool of shape \(3, 4\), .*of shape \(4, 3\)"),
            ("0.bias", lambda mask: mask[:1], r"mask of 0\.bias"),  # it would broadcast
            ("3.2.bias", lambda mask: mask.int(), r"mask of 3\.2\.bias"),
        ],
    )
    def test_masks_that_do_not_fit_are_named_and_nothing_is_changed(self, name, change, message):
        model = small_network()
        masks = random_masks(model, 0.5)
        before = appearance(model)
        changed = change(masks.pop(name))
        masks |= {"head.weight": torch.ones(1)} if changed is None else {name: changed}
        with pytest.raises(InputError, match=message):
            apply_masks(model, masks)
        assert appearance(model) == before
