"""Rounds: the schedule, what is masked in between, and that the weights come back."""

from collections.abc import Callable

import pytest
import torch
from networks import appearance, count, equal, normal
from torch import Tensor, nn

from sculpt.errors import InputError, NumericsError
from sculpt.pruning.mask_rule import MaskRule
from sculpt.pruning.masks import keep_highest, prunable_parameters
from sculpt.pruning.rounds import score_in_rounds
from sculpt.pruning.task import PruningTask

Seen = list[dict[str, Tensor]]


def network(bias: bool = False) -> nn.Module:
    return normal(nn.Sequential(nn.Linear(10, 20, bias=bias), nn.Linear(20, 5, bias=bias)), std=1)


def magnitudes(model: nn.Module, seen: Seen) -> Callable[[int], dict[str, Tensor]]:
    """Score with |w|, and remember the weights of each round."""

    def score(current: int) -> dict[str, Tensor]:
        assert current == len(seen) + 1
        seen.append({n: p.detach().clone() for n, p in prunable_parameters(model).items()})
        return {name: tensor.abs() for name, tensor in seen[-1].items()}

    return score


def test_the_density_falls_exponentially_and_the_last_round_is_not_masked_again():
    model, seen = network(), []
    before = appearance(model)
    scores = score_in_rounds(model, PruningTask(model, 3), magnitudes(model, seen), 4)
    # 300 · (1/100)^(r/4) after rounds 0 to 3.
    assert [count(weights) for weights in seen] == [300, 95, 30, 9]
    assert count(scores) == 9
    assert appearance(model) == before
    one_shot = score_in_rounds(model, PruningTask(model, 3), magnitudes(model, []), 1)
    assert equal(one_shot, {name: p.detach().abs() for name, p in model.named_parameters()})


def test_pruned_weights_score_0_whatever_the_round_says():
    model = network()
    first = keep_highest({n: p.detach().abs() for n, p in model.named_parameters()}, 30)

    def score(current: int) -> dict[str, Tensor]:
        if current == 1:
            return {name: p.detach().abs() for name, p in model.named_parameters()}
        return {name: torch.full_like(p, torch.inf) for name, p in model.named_parameters()}

    scores = score_in_rounds(model, PruningTask(model, 3), score, 2)
    assert equal({name: tensor > 0 for name, tensor in scores.items()}, first)


def test_zero_scores_fill_no_round():
    model, seen = network(), []
    with torch.no_grad():
        model[0].weight[:, :9] = 0  # 120 weights are left
    scores = score_in_rounds(model, PruningTask(model, 75), magnitudes(model, seen), 3)
    # 300 · (1/4)^(1/3) = 189 are scheduled, but there are only 120.
    assert [count(weights) for weights in seen] == [120, 120, 119]
    assert count(scores) == 119


def test_a_layer_that_cannot_fill_its_share_is_left_to_later_rounds():
    """Ranked layer by layer, zero biases leave 80 of 85 scores, but round 1 wants 81."""
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(16, 5))
    for layer in model:
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(layer.bias)
    seen: Seen = []
    task = PruningTask(model, 404, rule=MaskRule(scope="layer"))
    score_in_rounds(model, task, magnitudes(model, seen), 5)
    assert count(seen[1]) == 480
    assert count(seen[4]) < 480


def test_the_tasks_rule_masks_between_the_rounds():
    model, seen = network(), []
    with torch.no_grad():
        model[1].weight.mul_(1e-3)  # globally, the last layer would go first
    task = PruningTask(model, 30, rule=MaskRule(scope="layer"))
    score_in_rounds(model, task, magnitudes(model, seen), 2)
    assert [int(w.count_nonzero()) for w in seen[1].values()] == [63, 32]  # both 95 / 300


@pytest.mark.parametrize("broken", [1, 2, 4])
@pytest.mark.parametrize("fault", ["disk full", "must be finite.*0.weight"])
def test_the_weights_come_back_when_a_round_fails(broken, fault):
    model = network(bias=True)
    before = appearance(model)

    def score(current: int) -> dict[str, Tensor]:
        scores = {name: p.detach().abs() for name, p in model.named_parameters()}
        if current == broken and fault == "disk full":
            raise OSError(fault)
        if current == broken:
            scores["0.weight"][scores["0.weight"] > 0] = torch.nan
        return scores

    with pytest.raises((OSError, NumericsError), match=fault):
        score_in_rounds(model, PruningTask(model, 3), score, 5)
    assert appearance(model) == before


@pytest.mark.parametrize("rounds", [0, -1])
def test_less_than_one_round_is_refused(rounds):
    model = network()
    with pytest.raises(InputError, match=f"rounds must be at least 1, but got {rounds}"):
        score_in_rounds(model, PruningTask(model, 3), magnitudes(model, []), rounds)
