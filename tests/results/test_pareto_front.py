"""Fronts of studies: budgets, several studies, conditions, hypervolume and knee."""

from pathlib import Path
from typing import Any

import pytest
from rigged import SIZE, add_trial, attributes, results_of, rigged_store

from sculpt.errors import InputError, UnknownNameError
from sculpt.results.pareto import pareto, pareto_document
from sculpt.results.records import Results
from sculpt.results.tables.pareto import pareto_table

BOTH = ["val_error", "latency"]
Candidates = list[tuple[int, float, float | None]]


def study(
    folder: Path, candidates: Candidates, base_size: int | None = SIZE, **changes: Any
) -> Results:
    """Return a study of candidates (budget, validation error, latency), numbered as they come.

    The base has an error of 0.2 and a latency of 9; it is not finished if it has no size.
    """
    store = rigged_store(folder, **changes)
    if base_size:
        base = attributes([0.2], "base", kept_parameters=base_size, objectives=measured(0.2, 9.0))
        add_trial(store.base, base)
    for budget, error, latency in candidates:
        sizes = {"budget": budget, "kept_parameters": budget}
        found = attributes([error], objectives=measured(error, latency), **sizes)
        add_trial(store.candidates, found, {"budget": budget, "widening": 2 + (error < 0.2)})
    return results_of(store)


def measured(error: float, latency: float | None) -> dict[str, float]:
    values = {"val_error": error, "kept_macs": 1000.0, "latency": latency}
    return {name: value for name, value in values.items() if value is not None}


def trials(rows: list[dict[str, Any]]) -> list[int | str]:
    return [row["trial"] for row in rows]


def test_one_budget_is_one_front(tmp_path):
    results = study(tmp_path, [(SIZE, 0.1, 10.0), (SIZE, 0.3, 8.0), (SIZE, 0.3, 12.0)])
    document = pareto_document(results, BOTH)
    assert document["studies"] == ["tiny"]
    assert trials(document["front"]) == [0, "base", 1]
    assert (document["dominated"], document["missing"], document["notes"]) == (1, 0, [])
    first = document["front"][0]
    assert first == {
        "study": "tiny",
        "trial": 0,
        "role": "candidate",
        "budget": SIZE,
        "params": {"budget": SIZE, "widening": 3},
        "values": {"val_error": 0.1, "latency": 10.0},
        "knee": False,
    }
    assert document["front"][1]["params"] == results.config.model.options
    # The three lie on one line.
    (front,) = document["fronts"]
    assert front.pop("hypervolume")["volume"] == 0
    assert front.pop("front") == document["front"]
    assert front == {"budget": SIZE, "dominated": 1, "missing": 0, "knee": None}


def test_the_table_says_what_the_document_says(tmp_path):
    results = study(tmp_path, [(SIZE, 0.1, 10.0), (SIZE, 0.3, 8.0), (SIZE, 0.3, 12.0)])
    front = pareto(results, BOTH)
    leading = ["study", "trial", "role", "budget", "on_front", "knee", *BOTH]
    assert front.columns[: len(leading)].tolist() == leading
    assert set(front) == set(results.trials) | {"on_front", "knee"}
    assert front["trial"].tolist() == [0, "base", 1]
    assert (front.dtypes["on_front"], front.dtypes["knee"]) == (bool, bool)
    assert front["val_error"].tolist() == [0.1, 0.2, 0.3]
    every = pareto(results, BOTH, dominated=True)
    assert every["trial"].tolist() == [0, "base", 1, 2]
    assert every["on_front"].tolist() == [True, True, True, False]
    (entry,) = pareto_document(results, BOTH, dominated=True)["fronts"]
    assert trials(entry["front"]) == [0, "base", 1]
    assert entry["dominated"] == 1
    (beaten,) = entry["dominated_rows"]
    assert (beaten["trial"], beaten["knee"]) == (2, False)
    assert beaten["values"] == {"val_error": 0.3, "latency": 12.0}


def test_more_is_better_where_it_is_maximised(tmp_path):
    store = rigged_store(tmp_path)
    for number, (role, error, paths) in enumerate(
        [("base", 0.2, 10.0), ("candidate", 0.1, 9.0), ("candidate", 0.1, 8.0)]
    ):
        values = {"val_error": error, "effective_parameters": paths}
        found = attributes([error], role, objectives=values)
        add_trial(store.candidates if number else store.base, found)
    results = results_of(store)
    front = pareto(results, ["effective_parameters", "val_error"])
    assert front["trial"].tolist() == ["base", 0], "the highest comes first"
    document = pareto_document(results, ["effective_parameters", "val_error"])
    assert [o["direction"] for o in document["objectives"]] == ["maximize", "minimize"]


def test_the_hypervolume_is_what_is_dominated_up_to_the_base(tmp_path):
    candidates: Candidates = [(SIZE, 0.1, 6.0), (SIZE, 0.15, 3.0), (SIZE, 0.3, 1.0)]
    results = study(tmp_path, candidates)
    for where in (None, "role == 'candidate'"):  # the base is the reference all the same
        (front,) = pareto_document(results, BOTH, where)["fronts"]
        found = front["hypervolume"]
        assert found["reference"] == {"val_error": 0.2, "latency": 9.0}
        # The third is worse than the base in one objective.
        assert found["volume"] == pytest.approx(0.1 * 3 + 0.05 * 3)
        assert found["share"] == pytest.approx(0.45 / 1.8)
    assert "25.00% of the product" in pareto_table(pareto_document(results, BOTH)).note
    alone = study(tmp_path / "alone", [(SIZE, 0.1, 1.0)], base_size=None)
    document = pareto_document(alone, BOTH)
    assert document["fronts"][0]["hypervolume"] is None
    assert document["notes"] == ["no dense base has finished with all these values: no hypervolume"]


def test_a_base_value_of_zero_leaves_no_share(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.0], "base", objectives=measured(0.0, 2.0)))
    (front,) = pareto_document(results_of(store), BOTH)["fronts"]
    reference = {"val_error": 0.0, "latency": 2.0}
    assert front["hypervolume"] == {"reference": reference, "volume": 0.0, "share": None}


def test_the_knee_is_marked_in_its_own_front(tmp_path):
    small: Candidates = [(2000, 0.1, 9.0), (2000, 0.15, 5.0), (2000, 0.3, 4.0)]
    straight: Candidates = [(3000, 0.1, 3.0), (3000, 0.2, 2.0), (3000, 0.3, 1.0)]
    results = study(tmp_path, small + straight)
    document = pareto_document(results, BOTH)
    assert [front["knee"] for front in document["fronts"]] == [{"study": "tiny", "trial": 1}, None]
    assert [row["trial"] for row in document["front"] if row["knee"]] == [1]
    front = pareto(results, BOTH)
    assert front[front["knee"]]["trial"].tolist() == [1]
    assert [cells[-1] for cells in pareto_table(document).cells] == ["", "knee", "", "", "", ""]


def test_the_base_stays_in_the_only_front_whatever_its_size(tmp_path):
    document = pareto_document(study(tmp_path, [(2000, 0.3, 10.0)]), BOTH)
    assert trials(document["front"]) == ["base"]
    assert document["fronts"][0]["budget"] == 2000


def test_every_budget_has_its_front(tmp_path):
    small: Candidates = [(2000, 0.3, 10.0), (2000, 0.4, 11.0)]
    large: Candidates = [(SIZE, 0.1, 10.0), (SIZE, 0.3, 20.0)]
    results = study(tmp_path, small + large)
    document = pareto_document(results, BOTH)
    first, second = document["fronts"]
    # The base dominates every small one, but is not of their size.
    assert (first["budget"], trials(first["front"]), first["dominated"]) == (2000, [0], 1)
    assert (second["budget"], trials(second["front"])) == (SIZE, [2, "base"])
    assert second["dominated"] == 1
    assert document["front"] == first["front"] + second["front"]
    assert [row["budget"] for row in document["front"]] == [2000, SIZE, SIZE]
    assert document["dominated"] == 2
    assert first["hypervolume"]["reference"] == {"val_error": 0.2, "latency": 9.0}
    table = pareto_table(document)
    assert table.headers[0] == "budget"
    assert [cells[0] for cells in table.cells] == ["2,000", "4,874", "4,874"]
    every = pareto(results, BOTH, dominated=True)
    assert every["trial"].tolist() == [0, 1, 2, "base", 3]
    assert every["on_front"].tolist() == [True, False, True, True, False]
    only = pareto_document(results, BOTH, "budget > 2000")
    assert trials(only["front"]) == [2, "base"]
    assert (only["fronts"][0]["budget"], only["fronts"][0]["front"]) == (2000, [])
    assert pareto(results, BOTH, "widening > 3").empty


def test_the_base_is_in_no_front_of_another_size(tmp_path):
    results = study(tmp_path, [(2000, 0.3, 10.0), (3000, 0.3, 10.0)])
    assert pareto(results, BOTH)["trial"].tolist() == [0, 1]


def test_what_was_not_measured(tmp_path):
    results = study(tmp_path, [(SIZE, 0.1, None), (SIZE, 0.3, 8.0)])
    document = pareto_document(results, BOTH, dominated=True)
    assert trials(document["front"]) == ["base", 1]
    assert (document["dominated"], document["missing"]) == (0, 1)
    assert document["fronts"][0]["dominated_rows"] == []
    assert "1 without a value" in pareto_table(document).title
    assert pareto(results, BOTH, dominated=True)["trial"].tolist() == ["base", 1]
    assert pareto(results, ["val_error"])["trial"].tolist() == [0]
    message = "no trial has training_seconds; take of kept_macs, latency, "
    never = attributes([0.1], training_seconds=None)
    store = rigged_store(tmp_path / "never")
    add_trial(store.base, never | {"objectives": measured(0.1, 1.0), "role": "base"})
    with pytest.raises(InputError, match=message):
        pareto(results_of(store), ["val_error", "training_seconds"])
    with pytest.raises(InputError, match="no trial has macs, parameters; take of"):
        pareto(results_of(store), ["macs", "parameters"])
    with pytest.raises(InputError, match="must differ, but got latency, latency"):
        pareto(results_of(store), ["latency", "latency"])
    with pytest.raises(UnknownNameError, match="'beauty'"):
        pareto(results_of(store), ["beauty"])


def test_an_empty_study_has_an_empty_front(tmp_path):
    results = results_of(rigged_store(tmp_path))
    document = pareto_document(results, BOTH, "widening > 2", dominated=True)
    assert document["front"] == []
    empty = {"front": [], "dominated": 0, "missing": 0, "dominated_rows": []}
    assert document["fronts"] == [dict.fromkeys(["budget", "hypervolume", "knee"]) | empty]
    assert not pareto_table(document).rows
    front = pareto(results, BOTH)
    expected = ["study", "trial", "role", "budget", "on_front", "knee", *BOTH]
    assert (len(front), front.columns.tolist()) == (0, expected)
