"""Layer budgets: the formula, the cap, and sums that are exact."""

import math

import pytest
import torch
from networks import small_resnet
from torch import Tensor, nn

from sculpt.errors import BudgetError, DryRankingError, InputError
from sculpt.initializers import initialize
from sculpt.pruning.criteria.random import erk_random
from sculpt.pruning.layer_budgets import balanced_counts, erk_counts
from sculpt.pruning.mask_rule import MaskRule, select_masks
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.patterns import Pattern
from sculpt.pruning.prune import prune
from sculpt.pruning.task import PruningTask

# An MLP's layer that caps early, and a convolution's kernel that is not square.
SHAPES = {
    "stem.weight": (16, 3, 3, 3),
    "stem.bias": (16,),
    "conv.weight": (32, 16, 3, 1),
    "deep.weight": (64, 32, 3, 3),
    "classifier.weight": (10, 64),
    "classifier.bias": (10,),
}
WEIGHTS = {name: shape for name, shape in SHAPES.items() if len(shape) > 1}
TOTAL = sum(math.prod(shape) for shape in SHAPES.values())


def real_counts(shapes: dict[str, tuple[int, ...]], kept: int) -> dict[str, float]:
    """Return ε · (sum of the shape), at most the size, with ε found by bisection."""
    weights = {name: shape for name, shape in shapes.items() if len(shape) > 1}

    def counts(epsilon: float) -> dict[str, float]:
        return {n: min(math.prod(shape), epsilon * sum(shape)) for n, shape in weights.items()}

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(counts(middle).values()) < kept else (low, middle)
    return counts(low)


@pytest.mark.parametrize(
    ("shapes", "budgets"),
    [
        (SHAPES, [0, 1, 5, 100, 1234, 5000, 12000, 20000]),
        ({"a": (2, 1, 2, 2), "b": (3, 2), "c": (1, 3), "d": (4,)}, range(22)),
        ({"a": (1, 1), "b": (3, 4), "c": (10, 10)}, range(114)),  # a full layer fills the next
    ],
    ids=["network", "small", "chain"],
)
def test_counts_are_the_formulas_to_the_next_integer_and_add_up(shapes, budgets):
    for kept in budgets:
        counts = erk_counts(shapes, kept)
        assert list(counts) == list(shapes)
        assert sum(counts.values()) == kept
        assert all(0 <= counts[name] <= math.prod(shape) for name, shape in shapes.items())
        for name, count in real_counts(shapes, kept).items():
            assert abs(counts[name] - count) < 1, (kept, name)


def test_the_largest_remainders_are_rounded_up_and_ties_go_to_the_first():
    # Shares 10/3 each.
    assert erk_counts({"a": (5, 5), "b": (5, 5), "c": (5, 5)}, 10) == {"a": 4, "b": 3, "c": 3}
    # Shares 10 · 9/24 = 3.75, 10 · 9/24 = 3.75 and 2.5: the tied two are rounded up.
    assert erk_counts({"a": (3, 3), "b": (4, 5), "c": (5, 4)}, 10) == {"a": 2, "b": 4, "c": 4}


def test_biases_keep_nothing_until_every_weight_is_kept():
    weights = sum(math.prod(shape) for shape in WEIGHTS.values())
    for kept in (weights - 1, weights):
        counts = erk_counts(SHAPES, kept)
        assert (counts["stem.bias"], counts["classifier.bias"]) == (0, 0)
    counts = erk_counts(SHAPES, weights + 13)
    assert (counts["stem.bias"], counts["classifier.bias"]) == (8, 5)
    assert erk_counts(SHAPES, TOTAL) == {n: math.prod(shape) for n, shape in SHAPES.items()}


@pytest.mark.parametrize("kept", [-1, TOTAL + 1])
def test_a_budget_out_of_range_is_refused(kept):
    with pytest.raises(BudgetError, match=f"must be from 0 to {TOTAL}, but got {kept}"):
        erk_counts(SHAPES, kept)


def erk_scores(model: nn.Module, kept: int, seed: int = 0) -> dict[str, Tensor]:
    return erk_random(
        model, PruningTask(model, kept, generator=torch.Generator().manual_seed(seed))
    )


def test_random_masks_keep_these_counts():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for kept in (1, 100, 700, 1368, 1380, 1392):
        scores = erk_scores(model, kept)
        counts = {name: int(tensor.count_nonzero()) for name, tensor in scores.items()}
        assert counts == erk_counts(shapes, kept)
        assert all((tensor >= 0).all() for tensor in scores.values())


def test_every_position_of_a_random_mask_is_as_likely():
    model = nn.Linear(5, 4, bias=False)
    often = sum((erk_scores(model, 5, seed)["weight"] > 0).double() for seed in range(500))
    # Five standard errors of a mean of 500 draws with probability 1/4.
    assert ((often / 500 - 0.25).abs() < 5 * (0.25 * 0.75 / 500) ** 0.5).all()


def test_equal_draws_are_not_kept_together(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.zeros(*size))
    assert int(erk_scores(nn.Linear(5, 4), 7)["weight"].count_nonzero()) == 7


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 1234, 5000, TOTAL - 20, TOTAL])
def test_balanced_layers_keep_the_same_number_as_far_as_they_have_it(kept):
    counts = balanced_counts(SHAPES, kept)
    assert sum(counts.values()) == kept
    most = max(counts[name] for name in WEIGHTS)
    for name, shape in WEIGHTS.items():
        assert counts[name] in {most, most - 1} or counts[name] == math.prod(shape)
    if kept <= sum(math.prod(shape) for shape in WEIGHTS.values()):
        assert counts["stem.bias"] == counts["classifier.bias"] == 0


def test_balanced_counts_by_hand():
    shapes = {"a": (2, 2), "b": (10, 10), "c": (3, 5)}
    assert balanced_counts(shapes, 11) == {"a": 4, "b": 4, "c": 3}
    assert balanced_counts(shapes, 50) == {"a": 4, "b": 31, "c": 15}
    # Where less may be kept of a layer, the others take the rest.
    assert balanced_counts(shapes, 30, {"a": 2, "b": 50, "c": 7}) == {"a": 2, "b": 21, "c": 7}


class TestForAnyCriterion:
    @pytest.mark.parametrize("layer_budgets", ["erk", "balanced"])
    @pytest.mark.parametrize(
        "criterion",
        ["connection_sensitivity", "grasp", "iterative_snip", "magnitude", "random", "synflow"],
    )
    def test_scores_choose_within_layers_of_these_densities(self, criterion, layer_budgets):
        model = small_resnet(widening=2)
        initialize(model, "variance_scaling", seed=0)
        shapes = {name: p.shape for name, p in prunable_parameters(model).items()}
        counts_of = erk_counts if layer_budgets == "erk" else balanced_counts
        options = {"rounds": 40} if criterion in ("iterative_snip", "synflow") else {}
        masks = prune(
            model,
            700,
            criterion=criterion,
            inputs=torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
            labels=torch.arange(20) % 10,
            layer_budgets=layer_budgets,
            **options,
        )
        found = {name: int(mask.sum()) for name, mask in masks.items()}
        assert found == counts_of(shapes, 700)

    def test_the_highest_of_each_layer_stay(self):
        model = small_resnet(widening=2)
        scores = {
            name: torch.rand(p.shape) + 0.01 for name, p in prunable_parameters(model).items()
        }
        masks = select_masks(model, scores, 900, MaskRule(layer_budgets="balanced"), None)
        for name, mask in masks.items():
            if mask.any() and not mask.all():
                assert scores[name][mask].min() >= scores[name][~mask].max()

    @pytest.mark.parametrize("layer_budgets", ["erk", "balanced"])
    def test_kernels_stay_whole_and_no_layer_exceeds_its_share(self, layer_budgets):
        model = small_resnet(widening=2)
        scores = {
            name: torch.rand(p.shape) + 0.01 for name, p in prunable_parameters(model).items()
        }
        counts_of = erk_counts if layer_budgets == "erk" else balanced_counts
        counts = counts_of({name: score.shape for name, score in scores.items()}, 900)
        rule = MaskRule(granularity="kernel", layer_budgets=layer_budgets)
        for name, mask in select_masks(model, scores, 900, rule, None).items():
            assert 0 <= counts[name] - int(mask.sum()) < 9
            if mask.dim() == 4:
                assert set(mask.flatten(2).sum(2).unique().tolist()) <= {0, 9}

    @pytest.mark.parametrize("layer_budgets", ["erk", "balanced"])
    @pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
    def test_a_pattern_is_the_most_of_a_layer(self, layer_budgets, share):
        model = small_resnet(widening=2)
        scores = {
            name: torch.rand(p.shape) + 0.01 for name, p in prunable_parameters(model).items()
        }
        most = Pattern(2, 4).limits(model)
        kept = round(share * sum(most.values()))
        rule = MaskRule(granularity="2:4", layer_budgets=layer_budgets)
        masks = select_masks(model, scores, kept, rule, None)
        counts_of = erk_counts if layer_budgets == "erk" else balanced_counts
        shapes = {name: score.shape for name, score in scores.items()}
        assert {name: int(m.sum()) for name, m in masks.items()} == counts_of(shapes, kept, most)
        best = Pattern(2, 4).best(model, scores)
        assert all((best[name] | ~mask).all() for name, mask in masks.items())

    def test_weights_without_a_score_make_room_in_other_layers(self):
        """Some are drawn as exactly 0, above all in first layers, which ERK wants dense."""
        scores = {"a.weight": torch.tensor([[3.0, 0, 0, 1]]), "b.weight": torch.rand(6, 6) + 0.1}
        masks = select_masks(nn.Module(), scores, 14, MaskRule(layer_budgets="balanced"), None)
        assert masks["a.weight"].tolist() == [[True, False, False, True]]
        assert masks["b.weight"].sum() == 12

    def test_a_layer_without_scores_is_named(self):
        model = small_resnet(widening=2)
        scores = {name: torch.ones_like(p) for name, p in prunable_parameters(model).items()}
        scores["stem.conv.weight"].zero_()
        message = (
            r"layer_budgets 'erk' must find scores in every .* all of stem\.conv\.weight are 0"
        )
        with pytest.raises(DryRankingError, match=message):
            select_masks(model, scores, 700, MaskRule(layer_budgets="erk"), None)

    def test_biases_stay_only_where_all_weights_do(self):
        model = nn.Linear(3, 2)
        scores = {"weight": torch.rand(2, 3) + 0.1, "bias": torch.zeros(2)}
        masks = select_masks(model, scores, 6, MaskRule(layer_budgets="erk"), None)
        assert masks["weight"].all()
        assert not masks["bias"].any()
        with pytest.raises(DryRankingError, match="only 6 of 8 are"):
            select_masks(model, scores, 7, MaskRule(layer_budgets="erk"), None)
        masks = select_masks(model, scores, 8, MaskRule(layer_budgets="erk"), None)
        assert masks["bias"].all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scope": "layer"}, "scope must be global where layer_budgets say"),
            ({"mac_exponent": 0.5}, "mac_exponent must be 0 where layer_budgets say"),
            ({"effective": True}, "effective must be False where layer_budgets say"),
            ({"granularity": "channel"}, "layer_budgets must be left out where whole channels go"),
            ({"layer_budgets": "npb"}, "layer_budgets must be one of erk, balanced, but got 'npb'"),
        ],
    )
    def test_what_contradicts_it_is_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            prune(small_resnet(), 700, criterion="magnitude", **{"layer_budgets": "erk"} | options)
