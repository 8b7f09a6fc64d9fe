"""Opponents: as large as the budget, trained like the base, and beside the candidates' search."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

import sculpt
from sculpt.config import Opponent, Study
from sculpt.config.arms import with_arm
from sculpt.errors import ConfigError, InputError, SculptError
from sculpt.pruning.masks import count_parameters
from sculpt.results.tables.trial import diagnosis_tables
from sculpt.search.confirmation_queue import queue_confirmation
from sculpt.search.images import describe_data
from sculpt.search.opponents import (
    opponent_setups,
    opponent_sizes,
    queue_opponents,
    solve_width,
)
from sculpt.search.progress import Watcher
from sculpt.storage.opening import open_store, start_store
from sculpt.storage.store import OPPONENT
from sculpt.study_file import load_study
from sculpt.trial_setup import build_model
from studies import TINY, write_study

LISTED: list[dict[str, Any]] = [
    {"name": "dense", "blocks": 2, "budget": 10_000},
    {"name": "erk", "widening": 2},
    {"name": "shuffled", "widening": 2},
    {"name": "gradual_magnitude", "widening": 2},
    {"name": "magnitude_after_training", "widening": 2},
]


def opposed_study(folder: Path, opponents: list[dict[str, Any]], **changes: Any) -> Path:
    settings = {"search__trials": 2, "opponents": opponents}
    return write_study(folder, **(settings | changes))


class Started(Watcher):
    """Takes down which trials were started."""

    def __init__(self) -> None:
        self.labels: list[int | str] = []

    def trial_started(self, label: int | str, params: dict[str, Any], epochs: int) -> None:
        self.labels.append(label)


@pytest.fixture(scope="module")
def opposed(tmp_path_factory):
    path = opposed_study(
        tmp_path_factory.mktemp("opposed"), LISTED, search__replicates=2, training__epochs=2
    )
    watcher = Started()
    results = sculpt.run(path, watcher=watcher)
    return path, results, watcher


@pytest.mark.parametrize(
    ("opponent", "model"),
    [
        ({"blocks": 1, "budget": 20_000}, {}),
        ({"blocks": 2, "budget": 10_000}, {}),
        ({"blocks": 2, "budget": 100_000, "version": "v2", "shortcut": "projection"}, {}),
        ({"budget": 50_000}, {"name": "vgg16"}),
        ({"budget": 50_000, "layers": 4}, {"name": "mlp"}),
    ],
)
def test_the_width_is_solved_to_within_one_percent(tmp_path, opponent, model):
    study = load_study(write_study(tmp_path))
    if model:
        study = study.model_copy(update={"model": study.model.model_validate(model)})
    spec = describe_data(study)
    opposed = study.model_copy(update={"opponents": [Opponent(name="dense", **opponent)]})
    (setup,) = opponent_setups(opposed, spec)
    (size,) = opponent_sizes(opposed, spec)
    assert size["budget"] == setup.budget == opponent["budget"]
    assert abs(size["dense_parameters"] / opponent["budget"] - 1) <= 0.01
    for key, value in opponent.items():
        assert key == "budget" or setup.study.model.options[key] == value, "depth as given"
    assert setup.is_dense
    assert setup.params.keys() - opponent.keys() <= {"widening", "units", "stem_width"}


def test_a_dense_network_whose_width_is_given_is_as_large_as_that(tmp_path):
    study = load_study(write_study(tmp_path))
    spec = describe_data(study)
    opposed = study.model_copy(update={"opponents": [Opponent(name="dense", widening=1.5)]})
    (setup,) = opponent_setups(opposed, spec)
    (size,) = opponent_sizes(opposed, spec)
    network = build_model(setup.study, spec)
    assert setup.budget == size["budget"] == size["dense_parameters"]
    assert setup.budget == count_parameters(network, study.counting)
    assert setup.params == {"widening": 1.5}
    assert setup.is_dense


def test_a_size_that_is_not_met_is_told(tmp_path):
    study = load_study(write_study(tmp_path))
    spec = describe_data(study)
    with pytest.raises(ConfigError, match=r"within 1% of 60 parameters, but the nearest has \d+"):
        solve_width(study, Opponent(name="dense", budget=60), spec)
    path = write_study(tmp_path, budget={"sparsity": 0.9}, opponents=[{"name": "dense"}])
    with pytest.raises(ConfigError, match=r"opponents.0 \(dense\): .* give the opponent a budget"):
        sculpt.run(path)
    lenet = study.model_copy(
        update={"model": study.model.model_validate({"name": "lenet_300_100"})}
    )
    with pytest.raises(ConfigError, match="lenet_300_100 has none"):
        solve_width(lenet, Opponent(name="dense"), spec)


@pytest.mark.parametrize(
    ("opponents", "problem"),
    [
        ([{"name": "lucky"}], r"opponents.0.name: must be 'dense', 'erk'.*'lucky'"),
        ([{"name": "erk"}, {"name": "erk"}], "each opponent once, but 'erk' is there twice"),
        ([{"name": "erk", "depth": 3}], r"opponents.0 \(erk depth 3\): model.depth"),
        ([{"name": "erk", "search.seed": 3}], r"search.seed: must be an option of the model"),
        ([{"name": "erk", "training.epochs": -1}], r"training.epochs: must be .*-1"),
        (
            [{"name": "gradual_magnitude", "training.epochs": 0}],
            "must not be gradual_magnitude where training.epochs is 0",
        ),
    ],
)
def test_a_study_file_with_opponents_that_are_none(tmp_path, opponents, problem):
    with pytest.raises(ConfigError, match=problem):
        load_study(write_study(tmp_path, opponents=opponents))


def test_an_opponent_that_cannot_hold_the_budget_stops_the_study_before_it_starts(tmp_path):
    path = write_study(tmp_path, opponents=[{"name": "erk", "widening": 1, "stem_width": 2}])
    with pytest.raises(ConfigError, match=r"opponents.0 \(erk stem_width 2, widening 1\): "):
        sculpt.run(path)
    assert not (tmp_path / "tiny.db").exists()


def test_opponents_are_no_part_of_what_a_study_is():
    study = Study.model_validate(TINY)
    opposed = Study.model_validate(TINY | {"opponents": LISTED})
    assert opposed.fingerprint() == study.fingerprint()
    assert "opponents" not in study.model_dump()
    for control in ("dense", "sculpted"):
        assert with_arm(study, control) == study


def test_a_plug_in_that_opponents_alone_name_is_no_part_of_it_either():
    own = {"name": "import", "factory": "their_lab:make_net", "width": 12}
    opposed = Study.model_validate(TINY | {"opponents": [{"name": "erk", "model": own}]})
    assert opposed.plugins == ["their_lab"], "it is imported all the same"
    assert opposed.fingerprint() == Study.model_validate(TINY).fingerprint()
    # As soon as the study names it, too, it belongs to it.
    both = TINY | {"model": own, "space": {"parameters": {"width": [3]}}}
    study = Study.model_validate(both)
    assert study.identity()["plugins"] == ["their_lab"]
    assert Study.model_validate(both | {"opponents": LISTED}).fingerprint() == study.fingerprint()


def test_what_is_wanted_no_longer_is_not_run(tmp_path):
    def store_of(opponents):
        changes = {"opponents": opponents, "search__confirm": {"top": 1, "seeds": 2}}
        store = start_store(load_study(write_study(tmp_path, **changes)), "no images", 9)
        return store, store.trials(store.opponents)

    store, trials = store_of(LISTED[1:3])
    assert queue_opponents(store) == 2
    claimed = trials.claim(0)
    assert claimed is not None
    with pytest.raises(KeyboardInterrupt):
        trials.run(claimed, raise_interrupt)
    store, trials = store_of([LISTED[2]])
    assert queue_opponents(store, dry=True) == 1
    assert trials.counts()["queued"] == 2, "to count changes nothing"
    assert queue_opponents(store) == 1
    queued = [t.user_attrs[OPPONENT] for t in trials.read() if t.state is TrialState.WAITING]
    assert queued == [Opponent.model_validate(LISTED[2]).model_dump()]
    assert trials.requeue() == 0, "the interrupted one does not come back"
    # A process that was started before the list was changed takes nothing back.
    older, _ = store_of(LISTED[1:3])
    store, trials = store_of([LISTED[2], LISTED[3]])
    queue_opponents(store)
    assert (older.is_current, store.is_current) == (False, True)
    assert queue_opponents(older) == 2
    assert trials.counts()["queued"] == 3, "and what it wants itself it may add"
    # What comes back into the list is queued anew.
    store, trials = store_of(LISTED[1:3])
    assert queue_opponents(store) == 2
    assert trials.counts()["queued"] == 2


def test_a_confirmation_that_is_asked_for_no_longer_is_still_known(tmp_path):
    for confirm in ({"top": 1, "seeds": 2}, None):
        config = load_study(write_study(tmp_path, search__confirm=confirm))
        assert start_store(config, "no images", 9).confirmation is not None
    assert queue_confirmation(start_store(config, "no images", 9)) == 0


def raise_interrupt(_):
    raise KeyboardInterrupt


def test_arms_prune_as_their_names_say():
    study = Study.model_validate(TINY | {"pruning": {"granularity": "kernel", "scope": "layer"}})
    erk = with_arm(study, "erk").pruning
    assert (erk.criterion.name, erk.granularity, erk.scope) == ("erk_random", "weight", "global")
    assert with_arm(study, "random").pruning.granularity == "kernel"
    assert with_arm(study, "gradual_magnitude").training.moving.rule == "gradual_magnitude"
    after = with_arm(study, "magnitude_after_training").pruning
    assert (after.criterion.name, after.repair) == ("magnitude", False)


def test_an_opponent_that_is_trained_first_begins_as_the_base_does():
    again = {"name": "variance_scaling", "variant": "lecun"}
    study = Study.model_validate(TINY | {"pruning": {"redraw": again}})
    after = with_arm(study, "magnitude_after_training").pruning
    assert after.initializer == study.pruning.redraw
    assert after.redraw is False


def test_arms_that_choose_a_whole_mask_take_no_layer_budgets():
    study = Study.model_validate(TINY | {"pruning": {"layer_budgets": "balanced"}})
    assert with_arm(study, "erk").pruning.layer_budgets is None
    assert with_arm(study, "random").pruning.layer_budgets == "balanced"


@pytest.mark.slow
def test_opponents_run_after_the_base_and_count_towards_no_total(opposed):
    _, results, watcher = opposed
    labels = [Opponent.model_validate(entry).label for entry in LISTED]
    assert watcher.labels == ["base", *labels, 0]
    assert results.tally()["total"] == results.tally()["complete"] == 2
    assert list(results.opponents["trial"]) == labels
    assert set(results.opponents["state"]) == {"complete"}
    assert len(results.trials) == 2
    assert sculpt.status(results)["opponents"] == dict.fromkeys(labels, "complete")


@pytest.mark.slow
def test_opponents_are_paired_with_the_base(opposed):
    """The same seeds, epochs, steps and learning rates; sizes are exact, or within 1 %."""
    _, results, _ = opposed
    base = results.record("base")
    for row in results.opponent_rows:
        record = results.record(row["trial"])
        assert record["role"] == "opponent"
        assert record["arm"] == row["arm"] == row["trial"].split()[0]
        assert record["seeds"] == base["seeds"] == [0, 1]
        kept = record["kept_parameters"]
        assert kept == record["budget"] or row["arm"] == "dense"
        assert abs(kept / record["budget"] - 1) <= 0.01
        for run, reference in zip(record["runs"], base["runs"], strict=True):
            rates = [epoch["learning_rate"] for epoch in run["history"]]
            assert rates == [epoch["learning_rate"] for epoch in reference["history"]]
        twice = 2 if row["arm"] == "magnitude_after_training" else 1
        assert record["epochs"] == twice * base["epochs"] == row["epochs"]
    shown = results.record("dense blocks 2, budget 10000")
    assert shown["params"].keys() >= {"widening", "blocks"}
    assert set(shown["signal"]) == {"initial"}


@pytest.mark.slow
def test_a_dense_opponent_of_the_base_s_shape_is_the_base(tmp_path):
    """Trained with its seeds, initialiser and data order: it ends with the same errors."""
    path = opposed_study(tmp_path, [{"name": "dense"}], search__replicates=2)
    results = sculpt.run(path)
    base, dense = results.record("base"), results.record("dense")
    assert dense["kept_parameters"] == base["kept_parameters"]
    assert dense["val_errors"] == base["val_errors"]
    assert [r["train_loss"] for r in dense["runs"]] == [r["train_loss"] for r in base["runs"]]


@pytest.mark.slow
def test_both_trainings_of_magnitude_after_training_are_recorded(opposed):
    _, results, _ = opposed
    record = results.record("magnitude_after_training widening 2")
    for run in record["runs"]:
        first = run["first_training"]
        assert first["epochs"] == 2 == len(first["history"])
        assert run["history"][0]["train_loss"] < first["history"][0]["train_loss"]
    seconds = sum(r["seconds"]["train"] + r["first_training"]["seconds"] for r in record["runs"])
    assert record["training_seconds"] == pytest.approx(seconds / 2)
    assert "first_training" not in results.record("base")["runs"][0]


@pytest.mark.slow
def test_the_network_of_an_opponent_is_exported(opposed, tmp_path):
    _, results, _ = opposed
    sculpt.export_trial(results, "erk widening 2", tmp_path / "erk")
    network = sculpt.load(tmp_path / "erk")
    assert sum(int(mask.sum()) for mask in network.masks.values()) > 4000
    with pytest.raises(InputError, match=r"or an opponent \(dense blocks 2.*but got erk"):
        results.record("erk")


class InterruptAfter(Started):
    """Presses Ctrl-C after so many epochs of one trial."""

    def __init__(self, label: str, epochs: int) -> None:
        super().__init__()
        self.label, self.left = label, epochs

    def epoch_finished(self, epoch: Any) -> None:
        if self.labels[-1] == self.label:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [2, 5])
def test_an_opponent_goes_on_in_either_of_its_trainings(tmp_path, epochs):
    opponent = [{"name": "magnitude_after_training", "widening": 2}]
    settings = {"training__epochs": 3, "search__checkpoint_seconds": 0}
    errors = []
    for folder in (tmp_path / "whole", tmp_path / "broken"):
        folder.mkdir()
        path = opposed_study(folder, opponent, **settings)
        if folder.name == "broken":
            label = "magnitude_after_training widening 2"
            with pytest.raises(KeyboardInterrupt):
                sculpt.run(path, watcher=InterruptAfter(label, epochs))
            states = sculpt.status(sculpt.open_results(path))["opponents"]
            assert states[label] != "complete"
        record = sculpt.run(path).record("magnitude_after_training widening 2")
        (run,) = record["runs"]
        losses = [e["train_loss"] for e in run["first_training"]["history"] + run["history"]]
        errors.append((losses, record["val_errors"], record["epochs"]))
    assert errors[0] == errors[1], "bit for bit"
    store = open_store(path)
    assert store.opponents is not None
    assert len(store.opponents.trials) == 2


@pytest.mark.slow
def test_opponents_are_appended_to_a_finished_study_and_taken_out_again(tmp_path):
    before = sculpt.rank(sculpt.run(opposed_study(tmp_path, [])))
    assert "opponents" not in before
    runs = []
    for listed in ([LISTED[1]], [LISTED[1], LISTED[2]], [LISTED[2]], []):
        watcher = Started()
        results = sculpt.run(opposed_study(tmp_path, listed), watcher=watcher)
        assert [row["arm"] for row in results.opponent_rows] == [one["name"] for one in listed]
        runs.append(watcher.labels)
    assert runs == [["erk widening 2"], ["shuffled widening 2"], [], []]
    after = sculpt.rank(results)
    assert after == before
    store = open_store(tmp_path / "tiny.yaml")
    assert store.opponents is not None
    assert len(store.opponents.trials) == 2, "what ran is kept"


@pytest.mark.slow
def test_workers_share_the_opponents(tmp_path):
    path = opposed_study(tmp_path, LISTED[1:4])
    results = sculpt.run(path, trials_per_device=2)
    assert len(results.opponent_rows) == 3
    assert {row["state"] for row in results.opponent_rows} == {"complete"}


@pytest.mark.slow
def test_an_opponent_that_fails_says_so_and_is_tried_again(tmp_path, monkeypatch):
    from sculpt.search.workers import worker

    path = opposed_study(tmp_path, [LISTED[1]], search__confirm={"top": 1, "seeds": 2})

    def failing(setup: Any, *rest: Any) -> Any:
        return 1 / 0 if setup.role == "opponent" else run_seed(setup, *rest)

    run_seed = worker.run_seed
    with monkeypatch.context() as patch:
        patch.setattr(worker, "run_seed", failing)
        with pytest.raises(SculptError, match="every opponent must finish, but 1 failed"):
            sculpt.run(path)
    found = sculpt.rank(sculpt.open_results(path))
    unranked = found["unranked"]
    assert [(row["trial"], row["state"]) for row in unranked] == [("erk widening 2", "failed")]
    assert found["confirmation"]["complete"], "the rest is not kept waiting"
    results = sculpt.run(path)
    assert results.opponent_rows[-1]["state"] == "complete"
    assert results.record("erk widening 2")["state"] == "complete"


@pytest.mark.slow
def test_a_first_training_that_diverges_says_so(tmp_path):
    wild = LISTED[4] | {"training.learning_rate": 1e20}
    with pytest.raises(SculptError, match="but 1 failed: NumericsError: the first training must"):
        sculpt.run(opposed_study(tmp_path, [wild]))


@pytest.mark.slow
def test_an_archive_carries_opponents(opposed, tmp_path):
    _, results, _ = opposed
    sculpt.archive(results, tmp_path / "archive")
    read = sculpt.open_results(tmp_path / "archive")
    assert sculpt.rank(read) == sculpt.rank(results)
    label = "magnitude_after_training widening 2"
    assert read.record(label)["runs"] == results.record(label)["runs"]


@pytest.mark.slow
def test_the_confirmation_trains_the_best_dense_opponent_and_both_controls(tmp_path):
    path = opposed_study(
        tmp_path,
        [{"name": "dense", "blocks": 1}, LISTED[1]],
        search__confirm={"top": 1, "seeds": 2, "control": ["shuffled", "erk"]},
    )
    found = sculpt.rank(sculpt.run(path))["confirmation"]
    assert found["complete"] is True
    assert [(row["trial"], row["arm"], row["against"]) for row in found["rows"]] == [
        (0, "sculpted", "base"),
        (0, "shuffled", 0),
        (0, "erk", 0),
    ]
    assert {row["kept_parameters"] for row in found["rows"]} == {4874}
    (dense,) = found["dense"]
    assert dense["trial"] == "dense blocks 1"
    assert dense["difference"]["mean"] == 0, "it is the base itself"
    (against,) = found["against_dense"]
    assert (against["trial"], against["against"]) == (0, "dense blocks 1")
    assert against["difference"]["mean"] == found["rows"][0]["difference"]["mean"]


def test_macs_are_a_budget_that_candidates_and_dense_opponents_meet(tmp_path):
    path = opposed_study(
        tmp_path,
        [
            {"name": "dense", "blocks": 2},
            {"name": "erk", "widening": 2},
            {"name": "random", "widening": 2, "training.moving.rule": "rigl"},
        ],
        space__parameters__widening=[2, 3],
        budget={"macs": "base"},
        search__trials=3,
    )
    results = sculpt.run(path)
    document = sculpt.rank(results)
    rows = {row["trial"]: row for row in document["ranking"]}
    most = rows["base"]["kept_macs"]
    for trial in (0, 1, "erk widening 2", "random rule rigl, widening 2"):
        record = results.record(trial)
        assert record["kept_macs"] == most - record["runs"][0]["unspent_macs"]
        assert 0 <= record["runs"][0]["unspent_macs"] < 0.01 * most
        assert record["kept_parameters"] < record["budget"] == record["dense_parameters"]
    assert rows["dense blocks 2"]["kept_macs"] == pytest.approx(most, rel=0.01)
    assert document["budget"] is None
    assert document["macs"] == "base"
    assert {row["arm"] for row in document["opponents"]} == {"dense", "erk"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"budget": {"macs": 10**9}}, "must take at least the budget's 1000000000 MACs"),
        ({"budget": {"macs": 0}}, "budget.macs: must be greater than or equal to 1"),
        ({"budget": {"macs": "all"}}, "budget.macs: must be .*'base'"),
        ({"budget": {"parameters": 100}}, "budget.macs: must be given"),
        (
            {"budget": {"macs": "base"}, "training__moving": {"rule": "rigl", "scope": "global"}},
            "training.moving.rule: must be static, or rigl or set with scope layer",
        ),
    ],
)
def test_a_budget_of_macs_that_is_none(tmp_path, changes, problem):
    with pytest.raises(ConfigError, match=problem):
        sculpt.run(write_study(tmp_path, **changes))


def test_one_candidate_within_its_macs(tmp_path):
    path = write_study(tmp_path, budget={"macs": 20_000})
    document, _ = sculpt.diagnose_candidate(path, {"model.widening": 2})
    assert document["macs"] == 20_000
    assert 0 <= 20_000 - document["kept_macs"] < 16, "no other weight fits"
    (shown, *_) = diagnosis_tables(document).renderables
    assert "of at most 20.00 k MACs" in str(shown.title)
