"""Budgets of multiply-accumulates: met from below, as closely as single weights allow."""

import itertools

import pytest
import torch
from networks import small_resnet
from torch import nn

import sculpt
from sculpt.diagnostics.cost import measure_cost
from sculpt.errors import BudgetError, DryRankingError, InputError
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask

SHAPE = (1, 8, 8)
IMAGES = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """Three layers whose weights cost 64, 16 and 1 multiply-accumulates."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.head = nn.Linear(6, 10)

    def forward(self, images):
        return self.head(self.second(self.first(images).relu()).relu().mean((2, 3)))


def drawn(model=small_resnet):
    torch.manual_seed(0)
    model = model()
    sculpt.initialize(model, "variance_scaling", seed=0)
    return model


def positions(model):
    return measure_cost(model, SHAPE).positions


def macs_of(masks, uses):
    return sum(int(masks[name].sum()) * count for name, count in uses.items())


def kept(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def brute_force(model, scores, macs):
    """Walk down the ranking: the prefix that fits, then single weights that do."""
    uses = positions(model)
    flat = sorted(
        (
            (-float(s), index, name)
            for name, score in scores.items()
            for index, s in enumerate(score.flatten())
        ),
        key=lambda one: one[0],
    )
    masks = {name: torch.zeros(score.numel(), dtype=torch.bool) for name, score in scores.items()}
    full = False
    for _, index, name in flat:
        cost = uses.get(name, 0)
        full = full or cost > macs
        if cost <= macs and (cost or not full):  # a bias costs nothing, and is ranked all the same
            masks[name][index] = True
            macs -= cost
    return {name: mask.view(scores[name].shape) for name, mask in masks.items()}, macs


@pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")  # of empty layers
@pytest.mark.parametrize("macs", [1, 17, 100, 1_001, 2_750, 5_333])
def test_a_ranking_is_cut_where_the_macs_are_spent_and_filled_with_what_fits(macs):
    model = drawn(Odd)
    scores = {name: p.detach().abs() for name, p in prunable_parameters(model).items()}
    expected, left = brute_force(model, scores, macs)
    masks = sculpt.prune(model, macs=macs, criterion="magnitude", input_shape=SHAPE)
    assert macs_of(masks, positions(model)) == macs - left
    assert {n: m.tolist() for n, m in masks.items()} == {n: m.tolist() for n, m in expected.items()}


@pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")
@pytest.mark.parametrize(
    "settings",
    [
        *({"criterion": name} for name in ("connection_sensitivity", "random", "shuffled")),
        {"criterion": "erk_random"},
        {"criterion": "npb"},
        {"criterion": "synflow", "rounds": 3},
        {"criterion": "iterative_snip", "rounds": 3},
        {"scope": "layer"},
        {"granularity": "kernel"},
        {"granularity": "channel"},
        {"granularity": "2:4"},
        {"effective": True},
        {"layer_budgets": "erk"},
        {"mac_exponent": 1.0},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_no_criterion_and_no_rule_exceeds_the_macs(settings):
    model = drawn()
    uses = positions(model)
    macs = sum(uses[name] * model.get_parameter(name).numel() for name in uses) // 5
    masks = sculpt.prune(model, macs=macs, inputs=IMAGES, **settings)
    left = macs - macs_of(masks, uses)
    single = not {"granularity", "effective", "scope", "layer_budgets"} & settings.keys()
    whole = settings.get("criterion") in ("erk_random", "npb")
    assert left >= 0
    if single and not whole:
        assert left < min(uses.values()), "another weight would have fitted"
    else:
        most = {"channel": 0.2 * macs, "kernel": 9 * max(uses.values())}
        assert left < most.get(settings.get("granularity"), 0.02 * macs)
    assert kept(masks) > 0


def test_scores_that_follow_the_budget_are_those_of_the_weights_that_are_kept():
    model, other = drawn(), drawn()
    masks = sculpt.prune(model, macs=30_000, criterion="erk_random", input_shape=SHAPE, seed=3)
    same = sculpt.prune(other, kept(masks), criterion="erk_random", input_shape=SHAPE, seed=3)
    assert all(torch.equal(masks[name], same[name]) for name in masks)


def test_both_limits_hold():
    for budget, macs in itertools.product((200, 1_000), (5_000, 50_000)):
        model = drawn()
        masks = sculpt.prune(model, budget, macs=macs, inputs=IMAGES)
        spent = macs_of(masks, positions(model))
        assert kept(masks) <= budget
        assert spent <= macs
        assert kept(masks) == budget or macs - spent < min(positions(model).values())


def test_a_criterion_that_ignores_the_budget_scores_twice():
    calls = []

    def score(task):
        calls.append(task.kept)
        return {name: p.detach().abs() for name, p in prunable_parameters(model).items()}

    model = drawn()
    asked = PruningTask(model, 3_000, input_shape=SHAPE, macs=20_000)
    solved, scores = asked.scored(score)
    assert len(calls) == 2
    assert macs_of(solved.select(scores), positions(model)) == 20_000


def test_what_cannot_be_met_is_refused():
    with pytest.raises(BudgetError, match="none fits"):
        sculpt.prune(drawn(), macs=0, criterion="magnitude", input_shape=SHAPE)
    with pytest.raises(BudgetError, match="macs must be a whole number"):
        sculpt.prune(drawn(), macs=2.5, criterion="magnitude", input_shape=SHAPE)
    with pytest.raises(BudgetError, match="got None"):
        sculpt.prune(drawn(), criterion="magnitude", input_shape=SHAPE)
    with pytest.raises(InputError, match="input_shape"):
        sculpt.prune(drawn(), macs=100, criterion="magnitude")
    model = drawn(Odd)
    nn.init.zeros_(model.second.weight)
    with pytest.raises(DryRankingError):
        sculpt.prune(model, macs=4_000, criterion="magnitude", input_shape=SHAPE)
    with pytest.raises(BudgetError, match="at least the budget's 10000 MACs, but takes 5820"):
        sculpt.prune(drawn(Odd), macs=10_000, criterion="magnitude", input_shape=SHAPE)
