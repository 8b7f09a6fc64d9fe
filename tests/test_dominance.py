"""Non-domination, hypervolume and knee against their definitions written out, and Optuna's own."""

import itertools
import math
from fractions import Fraction

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sculpt.dominance import hypervolume, knee, non_dominated

thoroughly = settings(max_examples=200, deadline=None, derandomize=True)

# Few levels, so that ties and duplicates are the rule.
levels = st.integers(0, 3).map(float)
missing = st.sampled_from([math.nan, None])
infinite = st.sampled_from([math.inf, -math.inf])
widths = st.integers(1, 4)


@st.composite
def tables(draw, cell=levels, objectives=widths):
    """Arrays of up to 8 rows; None, as in a table of trials, becomes NaN."""
    width = draw(objectives)
    rows = draw(st.lists(st.lists(cell, min_size=width, max_size=width), max_size=8))
    return np.array(rows, dtype=float).reshape(len(rows), width)


def dominates(one, other):
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def by_definition(values):
    """The oracle: compare every pair."""
    sound = [row for row in values.tolist() if not any(map(math.isnan, row))]
    return [
        row in sound and not any(dominates(other, row) for other in sound)
        for row in values.tolist()
    ]


@thoroughly
@given(tables(st.one_of(levels, levels, levels, missing, infinite)))
def test_non_dominated_as_by_definition(values):
    before = values.copy()
    front = non_dominated(values)
    assert front.dtype == np.bool_
    assert front.tolist() == by_definition(values)
    assert np.array_equal(values, before, equal_nan=True), "the values are left alone"


@thoroughly
@given(tables(st.one_of(levels, levels, levels, missing)), st.data())
def test_non_dominated_as_optuna_has_it(values, data):
    width = values.shape[1]
    directions = data.draw(
        st.lists(st.sampled_from(["minimize", "maximize"]), min_size=width, max_size=width)
    )
    study = optuna.create_study(directions=directions)
    for row in values.tolist():
        # A finished trial has all values: Optuna takes no other, and a store keeps none.
        if any(map(math.isnan, row)):
            trial = optuna.create_trial(state=optuna.trial.TrialState.FAIL)
        else:
            trial = optuna.create_trial(values=row)
        study.add_trial(trial)
    signs = np.array([1.0 if direction == "minimize" else -1.0 for direction in directions])
    front = np.flatnonzero(non_dominated(values * signs)).tolist()
    assert front == sorted(trial.number for trial in study.best_trials)


@pytest.fixture(autouse=True, scope="module")
def _quiet_optuna():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_large_tables_as_by_definition(objectives):
    for seed in range(3):
        values = np.random.default_rng(seed).integers(0, 12, (150, objectives)).astype(float)
        assert non_dominated(values).tolist() == by_definition(values)


def cells_dominated(values, reference):
    """The oracle: count the unit cells of the grid whose lower corner a row dominates."""
    sound = [row for row in values.tolist() if all(map(math.isfinite, row))]
    grid = itertools.product(*[range(int(end)) for end in reference])
    return sum(
        any(all(a <= b for a, b in zip(row, cell, strict=True)) for row in sound) for cell in grid
    )


def references(width):
    return st.lists(st.integers(1, 4).map(float), min_size=width, max_size=width).map(np.array)


@thoroughly
@given(tables(st.one_of(levels, levels, levels, levels, missing)), st.data())
def test_hypervolume_counts_cells(values, data):
    reference = data.draw(references(values.shape[1]))
    found = hypervolume(values, reference)
    assert isinstance(found, float)
    assert found == cells_dominated(values, reference)


@thoroughly
@given(tables(st.floats(0, 1, width=16)), st.data())
def test_hypervolume_as_optuna_has_it(values, data):
    # Private, but the only other exact hypervolume among the libraries in use; only tests rely
    # on it.
    from optuna._hypervolume import compute_hypervolume

    reference = data.draw(references(values.shape[1])) / 4
    # Optuna refuses points that are beyond the reference.
    inside = values[(values <= reference).all(axis=1)]
    expected = compute_hypervolume(inside, reference) if len(inside) else 0.0
    assert hypervolume(values, reference) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_hypervolume_of_long_fronts_as_optuna_has_it(objectives):
    from optuna._hypervolume import compute_hypervolume

    values = np.random.default_rng(objectives).dirichlet([1] * objectives, 40)
    reference = np.full(objectives, 0.9)
    inside = values[(values < reference).all(axis=1)]
    assert len(inside) > 30
    expected = compute_hypervolume(inside, reference)
    assert hypervolume(values, reference) == pytest.approx(expected, rel=1e-9)


def test_hypervolume_without_end():
    assert hypervolume(np.array([[-np.inf, 0.5], [0.5, 0.2]]), np.ones(2)) == np.inf
    assert hypervolume(np.array([[np.inf, 0.5]]), np.ones(2)) == 0


def farthest_below_the_chord(front):
    """The oracle for two objectives: distances from the line through both ends, in fractions."""
    points = [(Fraction(x), Fraction(y)) for x, y in front.tolist()]
    (x0, y0), (x1, y1) = min(points), max(points)
    below = [(x1 - x0) * (y0 - y) - (y0 - y1) * (x - x0) for x, y in points]
    return below.index(max(below)) if max(below) > 0 else None


@st.composite
def curves(draw):
    """Fronts of two objectives: the first rises, the second falls, and some rows stand twice."""
    count = draw(st.integers(0, 6))
    steps = st.lists(st.integers(1, 6), min_size=count, max_size=count)
    rises, falls = (np.cumsum(draw(steps), dtype=float) for _ in range(2))
    rows = np.stack([rises, falls[::-1]], axis=1)
    copies = draw(st.lists(st.integers(1, 2), min_size=count, max_size=count))
    return rows[draw(st.permutations(np.repeat(range(count), copies).tolist()))]


@thoroughly
@given(curves())
def test_the_knee_is_farthest_below_the_chord(front):
    assert non_dominated(front).all()
    enough = len(np.unique(front, axis=0)) >= 3
    assert knee(front) == (farthest_below_the_chord(front) if enough else None)


@thoroughly
@given(st.one_of(curves(), tables(st.integers(0, 5).map(float), st.integers(2, 4))), st.data())
def test_the_knee_does_not_depend_on_units(values, data):
    front = values[non_dominated(values)]
    width = front.shape[1]
    # Powers of two, or rounding would break ties.
    factor = st.sampled_from([0.25, 1.0, 1024.0])
    scales = np.array(data.draw(st.lists(factor, min_size=width, max_size=width)))
    order = data.draw(st.permutations(range(width)))
    assert knee((front * scales - 3)[:, order]) == knee(front)


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ([[0, 1], [0.2, 0.2], [1, 0]], 1),
        ([[0, 1], [0.2, 0.5], [0.5, 0.2], [1, 0]], 1),  # the first of two
        ([[0, 1], [0.1, 0.9], [0.7, 0.3], [1, 0]], None),  # straight, up to rounding
        ([[0, 1], [0.8, 0.8], [1, 0]], None),  # concave
        ([[0, 1], [1, 0]], None),
        ([[0, 1], [1, 0], [1, 0]], None),  # two different points
        ([[0, 1, 7], [0.2, 0.2, 7], [1, 0, 7]], None),  # a constant objective
        ([[0.0], [0.0], [0.0]], None),
        ([[0, np.inf], [0.2, 0.2], [1, 0]], None),
        # Three objectives: a simplex either way up is flat, and between them it bulges.
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.3, 0.3, 0.4]], None),
        ([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0.6, 0.7, 0.7]], None),
        ([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0.4, 0.4, 0.5]], 3),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.6, 0.6]], None),
        # One objective has two values only: a knee may be among those with the lower one.
        ([[0, 1, 1], [1, 0, 1], [0.5, 0.9, 0], [0.3, 0.3, 1], [0.6, 0.7, 0]], 4),
    ],
)
def test_knees(front, expected):
    assert knee(np.array(front, dtype=float)) == expected
