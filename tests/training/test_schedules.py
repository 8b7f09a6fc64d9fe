"""Learning rates, step by step, in runs of any length."""

import itertools
import math

import pytest
import torch
from small_training import make_network, recipe

from sculpt.training.loop import train
from sculpt.training.schedules import rate_factor


def rates(name, steps, peak=0.4):
    """Return the rate of each optimiser step."""
    return [peak * rate_factor(name, step, steps) for step in range(steps)]


@pytest.mark.parametrize("quarter", [1, 2, 25, 300, 25_000])
def test_step_divides_by_ten_at_each_quarter(quarter):
    """In the paper at 25k, 50k and 75k of 100k iterations."""
    expected = [0.4 / 10**power for power in range(4) for _ in range(quarter)]
    assert rates("step", 4 * quarter) == pytest.approx(expected, rel=1e-12)
    assert rates("constant", 4 * quarter) == [0.4] * 4 * quarter


@pytest.mark.parametrize(
    ("steps", "powers"),
    [(1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (5, [0, 0, 1, 2, 3]), (6, [0, 0, 1, 2, 2, 3])],
)
def test_step_in_runs_without_four_whole_quarters(steps, powers):
    assert rates("step", steps) == pytest.approx([0.4 / 10**power for power in powers])


@pytest.mark.parametrize("steps", [50, 60, 1000])
def test_one_cycle_peaks_at_the_rate_after_a_fifth_and_ends_near_zero(steps):
    found = rates("one_cycle", steps)
    assert max(found) == pytest.approx(0.4, rel=1e-12)
    peak = found.index(max(found))
    assert abs(peak + 1 - steps / 5) <= 1
    differences = [later - earlier for earlier, later in itertools.pairwise(found)]
    rising, falling = differences[:peak], differences[peak:]
    assert min(rising) > 0
    assert max(falling) < 0
    # Straight lines: every step of a flank is as long as the others.
    assert rising == pytest.approx([rising[0]] * len(rising))
    assert falling == pytest.approx([falling[0]] * len(falling))
    assert 0 < found[0] < 0.4 * 0.15
    assert 0 < found[-1] < 0.4 * 2 / steps


@pytest.mark.parametrize("steps", range(1, 30))
def test_one_cycle_reaches_the_rate_in_runs_of_any_length(steps):
    found = rates("one_cycle", steps)
    assert max(found) == pytest.approx(0.4, rel=1e-12)
    assert min(found) > 0


def test_cosine_falls_by_half_a_cosine():
    expected = [0.2 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]
    assert rates("cosine", 40) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_a_warm_up_rises_in_a_line_and_the_schedule_begins_then(name):
    found = [rate_factor(name, step, 50, 0.2) for step in range(50)]
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert found[10:] == [rate_factor(name, step, 40) for step in range(40)]


@pytest.mark.parametrize("name", ["step", "one_cycle", "cosine", "constant"])
@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 150), (1, 75), (1, 50), (5, 150)])
def test_the_shortest_runs_train(splits, name, epochs, batch_size):
    """One, two, three and five steps: a rate below zero or a division by zero once hid here."""
    model, masks = make_network(density=0.5)
    settings = recipe(epochs=epochs, batch_size=batch_size, schedule=name, learning_rate=0.01)
    before = model.stem.conv.weight.detach().clone()
    history = train(model, masks, splits, settings, seed=0).history
    assert 0 < history[-1].learning_rate <= 0.01
    assert not torch.equal(model.stem.conv.weight, before)
