"""Budgets are met exactly, whatever the ties, and counted under a stated rule."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sculpt.errors import BudgetError, DryRankingError, InputError, NumericsError
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import (
    Masks,
    apply_masks,
    count_kept,
    count_parameters,
    dense_masks,
    keep_highest,
    prunable_budget,
    prunable_parameters,
)


def count(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


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
    def test_the_highest_stay(self):
        scores = {"a": torch.tensor([[0.1, 0.9], [0.5, 0.3]]), "b": torch.tensor([0.8, 0.2])}

        masks = keep_highest(scores, 3)

        assert masks["a"].tolist() == [[False, True], [True, False]]
        assert masks["b"].tolist() == [True, False]

    def test_masks_are_bool_of_the_scores_shapes_in_their_order(self):
        scores = {"z": torch.rand(2, 3, 1, 1), "a": torch.rand(4), "m": torch.rand(())}

        masks = keep_highest(scores, 5)

        assert list(masks) == ["z", "a", "m"]
        for name, mask in masks.items():
            assert mask.dtype == torch.bool
            assert mask.shape == scores[name].shape

    @pytest.mark.parametrize("kept", [0, 1, 7, 999, 1000])
    def test_of_equal_scores_the_earliest_stay(self, kept: int):
        masks = keep_highest({"a": torch.ones(20, 30), "b": torch.ones(400)}, kept)
        flat = torch.cat([masks["a"].flatten(), masks["b"]])
        assert flat.tolist() == [True] * kept + [False] * (1000 - kept)

    @pytest.mark.parametrize("kept", [1, 500, 40_000, 99_999])
    def test_the_count_is_exact_under_massive_ties(self, kept: int):
        values = torch.randint(1, 4, (100_000,), generator=torch.Generator().manual_seed(0))
        masks = keep_highest({"a": values[:30_000].float(), "b": values[30_000:].float()}, kept)
        assert count(masks) == kept

    @pytest.mark.parametrize("seed", range(60))
    def test_random_cases_against_a_stable_sort(self, seed: int):
        random = np.random.default_rng(seed)
        scores = {}
        for name in "abcde"[: random.integers(1, 6)]:
            shape = tuple(random.integers(1, 5, size=random.integers(1, 5)))
            # From two different values (all ties) to a continuum (none), and negative ones.
            levels = random.choice([2, 3, 10, 10**6])
            values = random.integers(1, levels + 1, size=shape) * random.choice([-1, 1, 0.1])
            scores[name] = torch.tensor(values, dtype=torch.float32)
        size = sum(score.numel() for score in scores.values())

        for kept in {0, 1, size // 3, size // 2, size - 1, size, int(random.integers(0, size + 1))}:
            masks = keep_highest(scores, kept)
            chosen = [keep for mask in masks.values() for keep in mask.flatten().tolist()]
            assert chosen == stable_sort_oracle(scores, kept), kept

    def test_the_same_scores_give_the_same_mask(self):
        scores = {"a": torch.randint(1, 5, (5000,)).float()}
        first = keep_highest(scores, 1234)
        for _ in range(5):
            assert torch.equal(keep_highest(scores, 1234)["a"], first["a"])

    def test_the_scores_are_only_read(self):
        scores = {"a": torch.rand(10)}
        before = scores["a"].clone()
        keep_highest(scores, 4)["a"].fill_(True)
        assert torch.equal(scores["a"], before)

    def test_neighbouring_floats_are_told_apart(self):
        one = torch.tensor(1.0)
        above = torch.nextafter(one, torch.tensor(2.0))
        masks = keep_highest({"a": torch.stack([one, one, above, one])}, 1)
        assert masks["a"].tolist() == [False, False, True, False]

    def test_a_larger_budget_keeps_what_a_smaller_one_kept(self):
        scores = {"a": torch.randint(1, 6, (300,), generator=torch.Generator().manual_seed(1))}
        previous = keep_highest(scores, 0)["a"]
        for kept in range(1, 301):
            mask = keep_highest(scores, kept)["a"]
            assert (mask | ~previous).all()
            previous = mask

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

    def test_scattered_zeros_are_no_ranking_either(self):
        with pytest.raises(DryRankingError, match="all zero in: none"):
            keep_highest({"a": torch.tensor([1.0, 0.0, 0.0])}, 2)

    def test_keeping_everything_needs_no_ranking(self):
        assert count(keep_highest({"a": torch.zeros(3), "b": torch.ones(2)}, 5)) == 5

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_a_score_that_is_not_finite_is_named(self, bad: float):
        scores = {"stem.weight": torch.rand(3, 2), "classifier.weight": torch.rand(4)}
        scores["classifier.weight"][[1, 2]] = bad
        with pytest.raises(NumericsError, match=r"2 of 4 scores of classifier\.weight are not"):
            keep_highest(scores, 3)

    @pytest.mark.parametrize("kept", [-1, 7])
    def test_a_count_out_of_range_is_refused(self, kept: int):
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

    def test_the_rules(self):
        model = small_network()
        assert count_parameters(model, "paper") == 28 + 15
        assert count_parameters(model, "total") == 28 + 8 + 15

    def test_what_is_frozen_is_not_trainable(self):
        model = small_network()
        model[1].requires_grad_(False)
        assert count_parameters(model, "total") == count_parameters(model, "paper") == 43

    def test_kept_is_counted_under_the_same_rules(self):
        model = small_network()
        masks = dense_masks(model)
        assert count_kept(model, masks, "paper") == 43
        masks["0.weight"][:2] = False
        masks["3.2.bias"][0] = False
        assert count_kept(model, masks, "paper") == 43 - 13
        assert count_kept(model, masks, "total") == 51 - 13

    def test_under_total_batch_norm_is_spent_first(self):
        model = small_network()
        assert prunable_budget(model, 20, "paper") == 20
        assert prunable_budget(model, 20, "total") == 12

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
    def test_budgets_out_of_range_are_refused(self, counting, lowest: int, highest: int):
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

    def test_dense_masks_keep_everything(self):
        model = small_network()
        masks = dense_masks(model)
        parameters = prunable_parameters(model)
        assert masks.keys() == parameters.keys()
        for name, mask in masks.items():
            assert mask.dtype == torch.bool
            assert mask.shape == parameters[name].shape
            assert mask.all()


class TestApplyMasks:
    @staticmethod
    def half(model: nn.Module) -> Masks:
        generator = torch.Generator().manual_seed(0)
        return {
            name: torch.rand(parameter.shape, generator=generator) < 0.5
            for name, parameter in prunable_parameters(model).items()
        }

    def test_pruned_weights_become_zero_and_the_others_stay(self):
        model = small_network()
        masks = self.half(model)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}

        apply_masks(model, masks)

        for name, parameter in model.named_parameters():
            mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
            assert torch.equal(parameter[mask], before[name][mask]), name
            assert not parameter[~mask].any(), name

    def test_it_is_in_place_and_leaves_no_gradient(self):
        model = small_network()
        parameters = dict(model.named_parameters())

        apply_masks(model, self.half(model))

        for name, parameter in model.named_parameters():
            assert parameter is parameters[name]
            assert parameter.requires_grad
            assert parameter.is_leaf

    def test_names_that_do_not_fit_are_listed(self):
        model = small_network()
        masks = self.half(model)
        masks["head.weight"] = masks.pop("3.2.weight")
        weight = model[0].weight.clone()
        with pytest.raises(InputError, match=r"only one of the two: 3\.2\.weight, head\.weight"):
            apply_masks(model, masks)
        assert torch.equal(model[0].weight, weight)

    def test_a_mask_that_is_not_bool_is_named(self):
        model = small_network()
        masks = self.half(model)
        masks["3.2.weight"] = masks["3.2.weight"].float()
        with pytest.raises(InputError, match=r"3\.2\.weight must be bool.*got torch\.float32"):
            apply_masks(model, masks)

    def test_a_mask_of_another_shape_is_named(self):
        model = small_network()
        masks = self.half(model)
        masks["3.2.weight"] = masks["3.2.weight"].T
        with pytest.raises(InputError) as refusal:
            apply_masks(model, masks)
        assert "the mask of 3.2.weight must be bool of shape (3, 4)" in str(refusal.value)
        assert "of shape (4, 3)" in str(refusal.value)

    def test_a_mask_that_would_broadcast_is_refused_too(self):
        model = small_network()
        masks = self.half(model)
        masks["0.bias"] = torch.ones(1, dtype=torch.bool)
        with pytest.raises(InputError, match=r"mask of 0\.bias"):
            apply_masks(model, masks)

    @pytest.mark.parametrize("fault", ["dtype", "shape"])
    def test_a_refusal_changes_nothing(self, fault: str):
        model = small_network()
        masks = self.half(model)
        last = masks["3.2.bias"]
        masks["3.2.bias"] = last.int() if fault == "dtype" else last[:2]
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}

        with pytest.raises(InputError):
            apply_masks(model, masks)

        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]), name
