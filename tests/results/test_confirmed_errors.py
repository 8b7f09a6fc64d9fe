"""What a confirmation says: test errors on the same fresh seeds, and nothing stale."""

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rigged import SIZE, add_trial, attributes, results_of, rigged_store
from scipy.stats import ttest_rel

from sculpt.config import Confirm
from sculpt.results.confirmed_errors import confirmed_errors
from sculpt.results.ranking import rank
from sculpt.search.confirmation_queue import best_candidates
from sculpt.storage.store import Store

BASE = [0.20, 0.21, 0.22, 0.20, 0.21]
GOOD = [0.10, 0.12, 0.12, 0.11, 0.10]
SHUFFLED = [0.30, 0.33, 0.31, 0.31, 0.30]
SAME = [0.22, 0.20, 0.21, 0.22, 0.20]


def searched(folder: Path, control: str | None = None) -> Store:
    """Return a study whose search has ended with three candidates."""
    store = rigged_store(folder, search__confirm={"top": 2, "seeds": 5, "control": control})
    add_trial(store.base, attributes([0.5, 0.5], "base"))
    for widening in (2, 3, 4):
        add_trial(store.candidates, attributes([0.4, 0.4]), {"widening": widening})
    return store


def select(store: Store, *numbers: int, seeds: int = 5) -> None:
    assert store.confirmation is not None
    store.confirmation.set_user_attr("selected", list(numbers))
    store.confirmation.set_user_attr("seeds", seeds)


def confirm(store: Store, candidate: int | str, errors: list[float | None], **changes: Any) -> None:
    """Add a trial of the confirmation with these test errors."""
    assert store.confirmation is not None
    facts = {"candidate": candidate, "arm": "sculpted", "seeds": len(errors)} | changes
    state = facts.pop("state", TrialState.COMPLETE)
    role = "base" if candidate == "base" else "candidate"
    found = attributes([0.3] * len(errors), role, test_errors=errors)
    add_trial(store.confirmation, found | facts, state=state)


def found(store: Store) -> dict[str, Any]:
    document = confirmed_errors(results_of(store))
    assert document is not None
    return document


def test_a_control_that_is_asked_for_no_longer_is_shown_and_not_waited_for(tmp_path):
    store = searched(tmp_path)
    select(store, 0, 1)
    confirm(store, "base", BASE)
    confirm(store, 0, GOOD)
    confirm(store, 0, SHUFFLED, arm="shuffled")
    assert found(store)["complete"] is False, "candidate 1 is to come"
    confirm(store, 1, GOOD)
    document = found(store)
    assert document["complete"] is True
    assert [(row["trial"], row["arm"]) for row in document["rows"]] == [
        (0, "sculpted"),
        (0, "shuffled"),
        (1, "sculpted"),
    ]


def test_without_one_and_before_the_search_has_ended(tmp_path):
    assert confirmed_errors(results_of(rigged_store(tmp_path / "without"))) is None
    store = searched(tmp_path / "searched")
    assert confirmed_errors(results_of(store)) is None
    assert rank(results_of(store))["confirmation"] is None


def test_better_and_the_same(tmp_path):
    store = searched(tmp_path)
    select(store, 2, 0)
    confirm(store, "base", BASE)
    confirm(store, 0, SAME)
    confirm(store, 2, GOOD)
    document = rank(results_of(store))["confirmation"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["top"], document["seeds"], document["complete"]) == (2, 5, True)
    assert document["base"]["test_error"] == {
        "mean": pytest.approx(0.208),
        "std": pytest.approx(0.00837, abs=1e-5),
        "n": 5,
    }
    assert document["selected"] == [2, 0]
    good, same = document["rows"]
    expected = ttest_rel(GOOD, BASE)
    p, interval = expected.pvalue, expected.confidence_interval()
    assert good.pop("difference") == pytest.approx(
        {"mean": -0.098, "low": interval.low, "high": interval.high}
        | {"p": p, "p_holm": 2 * p, "method": "student"}
    )
    assert good == {
        "trial": 2,
        "arm": "sculpted",
        "params": {"widening": 4},
        "budget": SIZE,
        "kept_parameters": SIZE,
        "kept_macs": 1000.0,
        "val_error": {"mean": pytest.approx(0.3), "std": pytest.approx(0), "n": 5},
        "test_error": {"mean": pytest.approx(0.11), "std": pytest.approx(0.01), "n": 5},
        "against": "base",
        "verdict": "better",
    }
    assert (same["trial"], same["verdict"]) == (0, "not distinguishable")


def test_a_shuffled_mask_is_compared_with_its_own_candidate(tmp_path):
    store = searched(tmp_path, "shuffled")
    select(store, 0, 1)
    confirm(store, "base", BASE)
    confirm(store, 1, GOOD)
    confirm(store, 1, SHUFFLED, arm="shuffled")
    confirm(store, 0, SHUFFLED)
    document = found(store)
    assert document["complete"] is False, "candidate 0 is not shuffled yet"
    confirm(store, 0, SHUFFLED, arm="shuffled")
    document = found(store)
    assert document["complete"] is True
    said = [(r["trial"], r["arm"], r["against"], r["verdict"]) for r in document["rows"]]
    assert said == [
        (0, "sculpted", "base", "worse"),
        (0, "shuffled", 0, "not distinguishable"),
        (1, "sculpted", "base", "better"),
        (1, "shuffled", 1, "worse"),
    ]
    assert document["rows"][3]["difference"]["mean"] == pytest.approx(0.2)
    p = ttest_rel(SHUFFLED, GOOD).pvalue
    assert document["rows"][3]["difference"]["p_holm"] == pytest.approx(2 * p)


@pytest.mark.slow
def test_nothing_is_compared_with_what_is_not_finished(tmp_path):
    store = searched(tmp_path, "shuffled")
    select(store, 0, 1)
    confirm(store, 1, GOOD)
    confirm(store, 0, SHUFFLED, arm="shuffled")
    confirm(store, "base", BASE, state=TrialState.RUNNING)
    document = found(store)
    assert (document["base"], document["complete"]) == (None, False)
    for row in document["rows"]:
        assert (row["difference"], row["verdict"]) == (None, None)
    confirm(store, "base", BASE)
    (row,) = [r for r in found(store)["rows"] if (r["trial"], r["arm"]) == (1, "sculpted")]
    p = ttest_rel(GOOD, BASE).pvalue
    assert row["verdict"] == "better"
    assert row["difference"]["p_holm"] == pytest.approx(2 * p), "the other one is still to come"


def test_only_what_is_selected_on_as_many_seeds_counts(tmp_path):
    store = searched(tmp_path)
    select(store, 1, seeds=5)
    confirm(store, "base", BASE[:3])
    confirm(store, 1, SHUFFLED[:3])
    confirm(store, 0, GOOD)
    confirm(store, 1, GOOD, state=TrialState.FAIL, error="it failed")
    document = found(store)
    assert (document["rows"], document["base"], document["complete"]) == ([], None, False)
    confirm(store, "base", BASE)
    confirm(store, 1, GOOD)
    document = found(store)
    assert [row["trial"] for row in document["rows"]] == [1]
    assert document["complete"] is True
    assert document["rows"][0]["difference"]["p_holm"] == document["rows"][0]["difference"]["p"]


def test_the_table_of_its_trials(tmp_path):
    store = searched(tmp_path)
    assert results_of(store).confirmation.empty
    select(store, 1)
    confirm(store, "base", BASE)
    confirm(store, 1, GOOD)
    confirm(store, 0, [None] * 5)
    select(store, 0)
    (row,) = found(store)["rows"]
    assert row["test_error"] is row["difference"] is row["verdict"] is None, "it was not read"
    table = results_of(store).confirmation
    assert list(table["trial"]) == ["base", 1, 0]
    assert list(table["arm"]) == ["sculpted"] * 3
    assert list(table["seeds"]) == [5] * 3
    assert table["test_errors"].iloc[1] == GOOD
    assert list(results_of(store).trials["trial"]) == ["base", 0, 1, 2], "these stay apart"


def test_the_best_of_the_cheap_ones(tmp_path):
    """Those that keep no more multiply-accumulates than the base are confirmed beside the best."""
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.3], "base", kept_macs=1000.0))
    macs = [3000.0, 1000.0, 2000.0, 900.0, 1001.0, 800.0]
    for number, kept in enumerate(macs):  # the best first
        add_trial(store.candidates, attributes([0.1 + number / 100], kept_macs=kept))
    for top, cheap, expected in (
        (1, 0, [0]),
        (1, 2, [0, 1, 3]),
        (3, 1, [0, 1, 2]),  # a cheap one is among the best, and is one of both
        (4, 2, [0, 1, 2, 3]),
        (1, 9, [0, 1, 3, 5]),
    ):
        assert best_candidates(store, Confirm(top=top, cheap=cheap)) == expected
