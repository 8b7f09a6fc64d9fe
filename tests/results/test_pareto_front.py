"""Non-domination against the definition, written out, and Optuna's own; fronts of studies."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from rigged import SIZE, add_trial, attributes, results_of, rigged_store

from sculpt.errors import InputError
from sculpt.results.pareto import non_dominated, pareto
from sculpt.results.records import Results
from sculpt.results.tables import pareto_table


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


def study(
    folder: Path, candidates: list[tuple[int, float, float | None]], base_size: int = SIZE
) -> Results:
    """Return a study of candidates (budget, validation error, latency), numbered as they come."""
    store = rigged_store(folder)
    base = attributes([0.2], "base", kept_parameters=base_size, objectives=measured(0.2, 9.0))
    add_trial(store.base, base)
    for budget, error, latency in candidates:
        sizes = {"budget": budget, "kept_parameters": budget}
        found = attributes([error], objectives=measured(error, latency), **sizes)
        add_trial(store.candidates, found, {"budget": budget, "widening": 2})
    return results_of(store)


def measured(error: float, latency: float | None) -> dict[str, float]:
    values = {"val_error": error, "kept_macs": 1000.0, "latency": latency}
    return {name: value for name, value in values.items() if value is not None}


def trials(rows: list[dict[str, Any]]) -> list[int | str]:
    return [row["trial"] for row in rows]


BOTH = ["val_error", "latency"]


def test_one_budget_is_one_front(tmp_path: Path) -> None:
    results = study(tmp_path, [(SIZE, 0.1, 10.0), (SIZE, 0.3, 8.0), (SIZE, 0.3, 12.0)])
    document = pareto(results, BOTH)
    assert trials(document["front"]) == [0, "base", 1]
    assert (document["dominated"], document["missing"]) == (1, 0)
    assert document["fronts"] == [
        {"budget": SIZE, "front": document["front"], "dominated": 1, "missing": 0}
    ]
    assert document["front"][0]["values"] == {"val_error": 0.1, "latency": 10.0}


def test_the_base_stays_in_the_only_front_whatever_its_size(tmp_path: Path) -> None:
    document = pareto(study(tmp_path, [(2000, 0.3, 10.0)]), BOTH)
    assert trials(document["front"]) == ["base"]
    assert document["fronts"][0]["budget"] == 2000


def test_every_budget_has_its_front(tmp_path: Path) -> None:
    small = [(2000, 0.3, 10.0), (2000, 0.4, 11.0)]
    large = [(SIZE, 0.1, 10.0), (SIZE, 0.3, 20.0)]
    document = pareto(study(tmp_path, small + large), BOTH)
    first, second = document["fronts"]
    # The base dominates every small one, but is not of their size.
    assert (first["budget"], trials(first["front"]), first["dominated"]) == (2000, [0], 1)
    assert (second["budget"], trials(second["front"])) == (SIZE, [2, "base"])
    assert second["dominated"] == 1
    assert document["front"] == first["front"] + second["front"]
    assert [row["budget"] for row in document["front"]] == [2000, SIZE, SIZE]
    assert document["dominated"] == 2
    table = pareto_table(document)
    assert table.columns[0].header == "budget"
    assert list(table.columns[0].cells) == ["2,000", "4,874", "4,874"]

    only = pareto(results := study(tmp_path / "again", small + large), BOTH, "budget > 2000")
    assert trials(only["front"]) == [2, "base"]
    assert only["fronts"][0] == {"budget": 2000, "front": [], "dominated": 0, "missing": 0}
    assert pareto(results, BOTH, "widening > 2")["front"] == []


def test_the_base_is_in_no_front_of_another_size(tmp_path: Path) -> None:
    results = study(tmp_path, [(2000, 0.3, 10.0), (3000, 0.3, 10.0)])
    assert trials(pareto(results, BOTH)["front"]) == [0, 1]


def test_what_was_not_measured(tmp_path: Path) -> None:
    results = study(tmp_path, [(SIZE, 0.1, None), (SIZE, 0.3, 8.0)])
    document = pareto(results, BOTH)
    assert trials(document["front"]) == ["base", 1]
    assert (document["dominated"], document["missing"]) == (0, 1)
    assert "1 without a value" in str(pareto_table(document).title)
    assert trials(pareto(results, ["val_error"])["front"]) == [0]

    message = "no trial has training_seconds; take of kept_macs, latency, "
    never = attributes([0.1], training_seconds=None)
    store = rigged_store(tmp_path / "never")
    add_trial(store.base, never | {"objectives": measured(0.1, 1.0), "role": "base"})
    with pytest.raises(InputError, match=message):
        pareto(results_of(store), ["val_error", "training_seconds"])
    with pytest.raises(InputError, match="no trial has macs, parameters; take of"):
        pareto(results_of(store), ["macs", "parameters"])


def test_an_empty_study_has_an_empty_front(tmp_path: Path) -> None:
    document = pareto(results_of(rigged_store(tmp_path)), BOTH, "widening > 2")
    assert document["front"] == []
    assert document["fronts"] == [{"budget": None, "front": [], "dominated": 0, "missing": 0}]
