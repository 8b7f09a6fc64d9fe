"""The verdicts of a ranking where the truth is known, and its JSON document."""

import json

import numpy as np
import pytest
from optuna.trial import TrialState
from rigged import SIZE, RiggedResults, add_trial, attributes, results_of, rigged_store

from sculpt.errors import InputError
from sculpt.results.ranking import rank
from sculpt.results.statistics import FEWEST, compare_paired

VALIDATION_IMAGES = 503


def errors(rng: np.random.Generator, rate: float, seeds: int) -> list[float]:
    """Draw the errors that a network of this error rate has on a validation set."""
    return (rng.binomial(VALIDATION_IMAGES, rate, seeds) / VALIDATION_IMAGES).tolist()


@pytest.mark.parametrize("seeds", [5, 10])
def test_a_worse_candidate_is_told_from_one_that_is_the_same(tmp_path, seeds):
    rng = np.random.default_rng(seeds)
    store = rigged_store(tmp_path)
    base = errors(rng, 0.05, seeds)
    add_trial(store.base, attributes(base, "base"))
    worse, same = errors(rng, 0.15, seeds), errors(rng, 0.05, seeds)
    add_trial(store.candidates, attributes(worse, kept_macs=500.0), {"widening": 2})
    add_trial(store.candidates, attributes(same), {"widening": 3})
    document = rank(results_of(store))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    rows = {row["trial"]: row for row in document["ranking"]}
    assert rows["base"]["verdict"] == "base"
    assert rows["base"]["difference"] is None
    assert rows[0]["verdict"] == "worse"
    assert rows[1]["verdict"] == "not distinguishable"
    assert [row["rank"] for row in document["ranking"]] == [1, 2, 3]
    assert document["ranking"][2]["trial"] == 0
    assert document["budget"] == rows[0]["budget"] == SIZE
    expected = compare_paired(worse, base)
    found = rows[0]["difference"]
    assert expected is not None
    assert (found["mean"], found["low"], found["high"], found["p"]) == (
        pytest.approx(np.mean(worse) - np.mean(base)),
        expected.low,
        expected.high,
        expected.p,
    )
    assert found["p_holm"] == pytest.approx(2 * expected.p), "the smaller one of two"
    assert found["method"] == ("bootstrap" if seeds >= FEWEST else "student")
    assert rows[1]["difference"]["p_holm"] == rows[1]["difference"]["p"]


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "studies"), [(5, 300), (FEWEST, 60)])
def test_chance_alone_finds_nothing_among_forty(seeds, studies):
    """Of studies in which all networks are alike, one in twenty may say otherwise of any."""
    rng = np.random.default_rng(seeds)
    wrong = uncorrected = 0
    for _ in range(studies):
        rows = [{"trial": "base"} | attributes(errors(rng, 0.05, seeds), "base")]
        rows += [{"trial": n} | attributes(errors(rng, 0.05, seeds)) for n in range(40)]
        ranking = rank(RiggedResults(rows))["ranking"]
        said = {row["verdict"] for row in ranking if row["role"] == "candidate"}
        assert said <= {"better", "worse", "not distinguishable"}
        wrong += said != {"not distinguishable"}
        uncorrected += any(row["difference"]["p"] < 0.05 for row in ranking if row["difference"])
    assert wrong / studies < 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5
    assert uncorrected / studies > 0.3, "without a correction this would have failed"


def test_one_seed_says_nothing(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.1], "base"))
    add_trial(store.candidates, attributes([0.01]), {"widening": 2})
    first = rank(results_of(store))["ranking"][0]
    assert (first["trial"], first["verdict"], first["difference"]) == (0, "single seed", None)


def test_several_budgets_have_no_common_one(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.1, 0.2], "base"))
    for budget in (2000, SIZE):
        found = attributes([0.1, 0.2], budget=budget, kept_parameters=budget)
        add_trial(store.candidates, found, {"budget": budget})
    document = rank(results_of(store))
    assert document["budget"] is None
    assert sorted(row["budget"] for row in document["ranking"]) == [2000, SIZE, SIZE]


def test_before_anything_has_finished(tmp_path):
    document = rank(results_of(rigged_store(tmp_path)))
    assert document["ranking"] == document["proxies"] == []
    assert document["budget"] is document["confirmation"] is None
    assert document["trials"]["complete"] == 0


def test_stopped_trials_are_counted_and_say_why(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.1, 0.2], "base"))
    add_trial(store.candidates, attributes([0.1, 0.2]), {"widening": 2})
    stopped = {
        "stopped_at": 3,
        "stopped_because": "after epoch 3: val error 30.00% is beaten by 2 of 3",
        "rungs": {"1": 0.4, "3": 0.3},
        "kept_macs": 2000.0,
        "epochs": 3,
        "seconds": 1.5,
    }
    add_trial(store.candidates, stopped, {"widening": 3}, TrialState.PRUNED)
    results = results_of(store)
    document = rank(results)
    assert len(document["ranking"]) == 2
    assert (document["trials"]["complete"], document["trials"]["stopped"]) == (2, 1)
    row = results.trials.iloc[-1]
    assert (row["state"], row["stopped_at"], row["epochs"], row["seconds"]) == (
        "stopped",
        3,
        3,
        1.5,
    )
    assert row["rungs"] == {"1": 0.4, "3": 0.3}
    assert (row["error"], row["kept_macs"]) == (stopped["stopped_because"], 2000.0)
    assert (row["val_errors"], row["val_error_n"]) == ([], 0)
    assert results.record(1) == {
        "trial": 1,
        "state": "stopped",
        "error": stopped["stopped_because"],
        "params": {"widening": 3},
        "rungs": {"1": 0.4, "3": 0.3},
    }
    assert document["unranked"] == [
        {
            "trial": 1,
            "state": "stopped",
            "params": {"widening": 3},
            "seconds": 1.5,
            "error": stopped["stopped_because"],
        }
    ]
    with pytest.raises(InputError, match="must be base, best or one of 0, 1, but got 2"):
        results.record(2)


def test_of_several_attempts_at_the_base_the_last_is_told_and_none_once_it_has_finished(tmp_path):
    store = rigged_store(tmp_path)
    for error in ("the first", "the second"):
        add_trial(store.base, {"error": error}, state=TrialState.FAIL)
    add_trial(store.candidates, {"error": "alone"}, {"widening": 2}, state=TrialState.FAIL)

    def failed():
        return [(row["trial"], row["error"]) for row in rank(results_of(store))["unranked"]]

    assert failed() == [("base", "the second"), (0, "alone")]
    assert results_of(store).record("base")["error"] == "the second"
    add_trial(store.base, attributes([0.1, 0.2], "base"))
    assert failed() == [(0, "alone")]
