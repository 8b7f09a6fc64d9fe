"""Whole searches by samplers that learn, in a space with much that cannot be run."""

import pytest

import sculpt
from sculpt.search.sampling.unrepeated import key_of
from sculpt.storage.opening import open_store
from studies import write_study

SPACE = {
    "parameters": {
        "widening": [1, 2, 3, 6],
        "pruning.criterion": [{"name": "random"}, {"name": "magnitude"}],
        "pruning.mac_exponent": {"low": 0.0, "high": 1.0, "step": 0.25},
        "pruning.repair": [True, False],
    },
    "conditions": {"pruning.mac_exponent": {"pruning.criterion": "magnitude"}},
    "constraints": {"max_macs": 1_000_000, "max_memory": "1GiB"},
}
"""48 points. Those of widening 1 cannot hold the budget, those of 6 have too many MACs."""


@pytest.mark.slow
def test_a_search(tmp_path):
    path = write_study(
        tmp_path,
        space=SPACE,
        budget=6000,
        model__widening=1,
        training__epochs=0,
        search__sampler="tpe",
        search__trials=9,
        search__replicates=1,
    )
    results = sculpt.run(path)
    tally = results.tally()
    assert (tally["total"], tally["complete"]) == (9, 9)
    trials = open_store(path).candidates.trials
    assert len({key_of(trial.params) for trial in trials}) == len(trials)
    for trial in trials:
        assert trial.constraints.keys() == {"budget", "max_macs", "max_memory"}
        feasible = max(trial.constraints.values()) <= 0
        assert feasible == (trial.state.name == "COMPLETE")
        assert feasible == (trial.params["widening"] in (2, 3))
        assert ("pruning.mac_exponent" in trial.params) == (
            trial.params["pruning.criterion"] == "magnitude"
        )
    gone = results.trials[results.trials["state"] == "infeasible"]
    assert len(gone) == tally["infeasible"] == len(trials) - 8
    for _, row in gone.iterrows():
        rule = "a budget must be" if row["params.widening"] == 1 else "space.constraints.max_macs"
        assert rule in row["error"]
