"""Non-domination against the definition, written out, and against Optuna's own."""

import itertools

import numpy as np
import optuna
import pytest

from sculpt.results.pareto import non_dominated


def by_definition(values):
    """The oracle: compare every pair."""

    def dominates(one, other):
        return all(a <= b for a, b in zip(one, other, strict=True)) and any(
            a < b for a, b in zip(one, other, strict=True)
        )

    sound = [row for row in values if not np.isnan(row).any()]
    return [
        not np.isnan(row).any() and not any(dominates(other, row) for other in sound)
        for row in values
    ]


def random_case(seed, nan):
    """Points on a coarse grid, so that ties and duplicates are the rule."""
    rng = np.random.default_rng(seed)
    count, objectives = int(rng.integers(1, 30)), int(rng.integers(1, 5))
    levels = int(rng.choice([2, 4, 1000]))
    values = rng.integers(0, levels, (count, objectives)) / levels * rng.choice([1.0, 1e9])
    if rng.random() < 0.2:
        values[rng.random(values.shape) < 0.1] = np.inf
    if nan:
        values[rng.random(values.shape) < rng.choice([0.02, 0.3])] = np.nan
    return values


@pytest.mark.parametrize("nan", [False, True])
def test_as_by_definition(nan):
    sizes = set()
    for seed in range(300):
        values = random_case(seed, nan)
        front = non_dominated(values)
        assert front.dtype == np.bool_
        assert front.tolist() == by_definition(values), values
        sizes.add(min(int(front.sum()), 3))
    assert sizes == ({0, 1, 2, 3} if nan else {1, 2, 3})


def test_as_optuna_has_it():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for seed in range(200):
            values = random_case(seed, nan=False)
            rng = np.random.default_rng(seed)
            directions = rng.choice(["minimize", "maximize"], values.shape[1]).tolist()
            study = optuna.create_study(directions=directions)
            study.add_trials([optuna.create_trial(values=row) for row in values.tolist()])
            best = {trial.number for trial in study.best_trials}
            signs = np.array([1 if direction == "minimize" else -1 for direction in directions])
            assert set(np.flatnonzero(non_dominated(values * signs)).tolist()) == best, values
    finally:
        optuna.logging.set_verbosity(verbosity)


def test_the_order_of_rows_does_not_matter():
    values = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0], [2.0, 2.0], [1.0, 1.0], [np.nan, 0.0]])
    expected = np.array([True, True, True, False, True, False])
    for order in itertools.permutations(range(6)):
        assert (non_dominated(values[list(order)]) == expected[list(order)]).all()


@pytest.mark.parametrize("objectives", [1, 2, 4])
def test_no_rows(objectives):
    front = non_dominated(np.empty((0, objectives)))
    assert front.shape == (0,)
    assert front.dtype == np.bool_


def test_rows_of_nan_alone():
    assert non_dominated(np.full((3, 2), np.nan)).tolist() == [False] * 3


def test_the_values_are_left_alone():
    values = random_case(7, nan=True)
    before = values.copy()
    non_dominated(values)
    assert np.array_equal(values, before, equal_nan=True)
