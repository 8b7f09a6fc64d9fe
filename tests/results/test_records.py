"""The table of a study: its columns are documented, and a snapshot is read once."""

import pytest
from optuna.trial import TrialState
from rigged import add_trial, attributes, results_of, rigged_store

import sculpt
from sculpt.results.columns import described
from studies import write_study


@pytest.mark.slow
def test_every_column_of_a_real_study_is_documented(tmp_path):
    settings = {"search__early_stopping": {"first_rung": 1, "proxy": "effective_nodes"}}
    path = write_study(tmp_path, training__epochs=2, search__replicates=1, **settings)
    results = sculpt.run(path)
    columns = results.columns
    assert list(columns["name"]) == list(results.trials)
    assert {"study", "val_error", "repaired_jacobian_mean", "rungs"} <= set(columns["name"])
    undocumented = columns[columns["meaning"] == ""]
    assert undocumented.empty, list(undocumented["name"])


def test_columns_stand_in_one_order_whatever_ended_first(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.candidates, {"infeasible": "too large"}, {"widening": 9}, TrialState.PRUNED)
    add_trial(store.candidates, attributes([0.1]) | {"of_a_plugin": 1}, {"widening": 2})
    names = list(results_of(store).trials)
    assert names[:5] == ["study", "trial", "state", "role", "params.widening"]
    assert names[-2:] == ["of_a_plugin", "error"]
    assert described(["of_a_plugin"]) == [("of_a_plugin", "", "")]


def test_infeasible_and_stopped_trials_have_a_role(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.1], "base"))
    add_trial(store.candidates, {"infeasible": "too large"}, {}, TrialState.PRUNED)
    assert list(results_of(store).trials["role"]) == ["base", "candidate"]


def test_a_snapshot_is_read_once(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.candidates, attributes([0.1]))
    results = results_of(store)
    snapshot = results.snapshot()
    before = snapshot.trials
    before["val_error"] = -1.0  # of this copy alone
    add_trial(store.candidates, attributes([0.2]))
    assert len(results.trials) == 2
    assert len(snapshot.trials) == 1
    assert snapshot.trials["val_error"].tolist() == [0.1]
    assert snapshot.tally()["complete"] == 1
