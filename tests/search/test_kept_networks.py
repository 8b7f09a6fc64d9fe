"""Which trained networks stay among the artifacts."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import sculpt
from sculpt.dominance import non_dominated
from sculpt.errors import ConfigError, SculptWarning, StorageError
from sculpt.results.records import Results
from sculpt.storage.artifacts import ArtifactStore
from sculpt.storage.opening import open_store
from sculpt.storage.trial_files import FILES, RECORD_FILE, discard_networks
from studies import write_study


def small_study(folder: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "search__trials": "all",
        "search__confirm": {"top": 1, "seeds": 2},
    }
    return write_study(folder, **(settings | changes))


def having_networks(results: Results, folder: Path) -> set[int | str]:
    """Return the finished trials whose networks can be read, each with all of its seeds."""
    found: set[int | str] = set()
    for trial in results.complete["trial"]:
        seeds = results.record(trial)["seeds"]
        try:
            for seed in seeds:
                results.copy_network(trial, folder / "network", seed)
                found.add(trial)
        except StorageError:
            assert trial not in found
    return found


def files_of_confirmation(path: Path) -> set[str]:
    store = open_store(path)
    assert store.confirmation is not None
    trials = store.confirmation.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert len(trials) == 2
    files = [trial.system_attrs[FILES] for trial in trials]
    return {name for ids in files for name in ids if store.artifacts.has(ids[name])}


@pytest.mark.slow
def test_the_front_keeps_its_networks(tmp_path):
    path = small_study(tmp_path, search__networks="front", search__replicates=1)
    results = sculpt.run(path)
    candidates = results.complete[results.complete["role"] == "candidate"]
    front = non_dominated(candidates[["val_error", "kept_macs"]].to_numpy(dtype=float))
    expected = {"base", *candidates["trial"][front]}
    assert having_networks(results, tmp_path) == expected
    assert len(expected) < len(results.complete)  # or nothing was asked
    assert files_of_confirmation(path) == {RECORD_FILE}


@pytest.mark.slow
def test_all_or_none(tmp_path):
    path = small_study(tmp_path, search__trials=2)
    results = sculpt.run(path)
    assert having_networks(results, tmp_path) == {"base", 0}
    assert len(files_of_confirmation(path)) == 3
    # Not a setting that a study must keep: from here on none.
    results = sculpt.run(path, overrides={"search.trials": 3, "search.networks": "none"})
    assert having_networks(results, tmp_path) == {"base", 0}
    with pytest.raises(StorageError, match=r"search\.networks none .*train this configuration"):
        results.copy_network(1, tmp_path / "network")
    assert results.record(1)["runs"]


def test_no_other_value(tmp_path):
    with pytest.raises(ConfigError, match=r"search\.networks: must be 'all', 'front' or"):
        sculpt.run(small_study(tmp_path, search__networks="best"))


@pytest.mark.slow
def test_networks_that_cannot_be_removed_are_a_warning(tmp_path, monkeypatch):
    path = small_study(tmp_path, search__trials=2)
    sculpt.run(path, overrides={"search.confirm": None})
    store = open_store(path)
    settings = store.config.search.model_copy(update={"networks": "none"})
    object.__setattr__(store, "config", store.config.model_copy(update={"search": settings}))
    (trial,) = store.candidates.get_trials()

    def refuse(self: ArtifactStore, artifact_id: str) -> None:
        raise PermissionError("no")

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "remove", refuse)
        with pytest.warns(SculptWarning, match="cannot be removed"):
            discard_networks(store, store.candidates, trial)
    assert having_networks(Results(store), tmp_path) == {"base", 0}
    for _ in range(2):  # the second time there is nothing left
        discard_networks(store, store.candidates, trial)
    assert having_networks(Results(store), tmp_path) == {"base"}


@pytest.mark.slow
def test_directions_and_budgets(tmp_path):
    """More is better for some objectives, and sizes do not compete with each other."""
    path = small_study(
        tmp_path,
        study="sizes",
        search__networks="front",
        search__replicates=1,
        search__confirm=None,
        search__objectives=["val_error", "effective_parameters"],
        space__parameters={"widening": [2, 3], "budget": [500, 900]},
    )
    results = sculpt.run(path)
    candidates = results.complete[results.complete["role"] == "candidate"]
    assert len(candidates) == 4
    expected: set[int | str] = {"base"}
    for _, rows in candidates.groupby("budget"):
        values = rows[["val_error", "effective_parameters"]].to_numpy(dtype=float)
        expected |= set(rows["trial"][non_dominated(values * np.array([1, -1]))])
    assert having_networks(results, tmp_path) == expected
