"""Rungs, who gets past them, and what a stopped trial leaves behind."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sculpt
from sculpt.config import EarlyStopping, Training
from sculpt.errors import ConfigError
from sculpt.quantities import badness
from sculpt.record import Epoch
from sculpt.results.records import Results
from sculpt.search.progress import Watcher
from sculpt.search.sampling.early_stopping import expected_seeds, reason_to_stop, rung_epochs
from sculpt.study_file import load_study
from studies import write_study

SPACE = {"widening": [2, 3], "blocks": [1, 2], "training.learning_rate": [0.0001, 0.1, 0.3]}


@pytest.mark.parametrize(
    ("settings", "training", "bracket", "expected"),
    [
        ({}, {"epochs": 30}, 0, [1, 3, 9, 27]),
        ({}, {"epochs": 27}, 0, [1, 3, 9]),  # the last epoch is no rung
        ({"first_rung": 2, "factor": 4}, {"epochs": 40}, 0, [2, 8, 32]),
        ({}, {"epochs": 30}, 1, [3, 9, 27]),
        ({}, {"epochs": 30}, 4, []),  # trained to the end, as Hyperband's last bracket is
        ({}, {"epochs": 1}, 0, []),
        # Only epochs that are evaluated can be judged; 1 and 3 fall together.
        ({}, {"epochs": 30, "evaluate_every": 5}, 0, [5, 10]),
        ({"first_rung": 28}, {"epochs": 30, "evaluate_every": 5}, 0, []),
    ],
)
def test_rungs(settings, training, bracket, expected):
    found = rung_epochs(EarlyStopping(**settings), Training(**training), bracket)
    assert found == expected


@pytest.mark.parametrize(
    ("own", "others", "share", "goes_on"),
    [
        ([0.9], [], 1 / 3, True),  # the first of all
        ([0.9], [[0.8]], 1 / 3, False),  # of few, the best goes on
        ([0.7], [[0.8]], 1 / 3, True),
        ([0.8], [[0.8], [0.8]], 1 / 3, True),  # equals stand together
        ([0.5], [[0.1], [0.2], [0.6], [0.7], [0.8]], 1 / 3, False),
        ([0.5], [[0.1], [0.6], [0.7], [0.8], [0.9]], 1 / 3, True),  # second of six
        ([0.5], [[0.1], [0.2], [0.7]], 0.75, True),
        # Worse but cheaper: dominated by none.
        ([0.9, 1.0], [[0.1, 2.0], [0.2, 2.0], [0.3, 2.0]], 1 / 3, True),
        ([0.9, 2.0], [[0.1, 2.0], [0.2, 2.0], [0.3, 3.0]], 1 / 3, False),
    ],
)
def test_who_goes_on(own, others, share, goes_on):
    assert (reason_to_stop(own, others, share) is None) == goes_on


@pytest.mark.parametrize(("factor", "count"), [(2, 64), (3, 81), (4, 100)])
def test_about_one_in_factor_goes_on_and_the_best_always_does(factor, count):
    """However the candidates are ordered; the first ones are judged by few."""
    for seed in range(20):
        values = np.random.default_rng(seed).permutation(count).tolist()
        passed = [
            own
            for place, own in enumerate(values)
            if not reason_to_stop([own], [[other] for other in values[:place]], 1 / factor)
        ]
        assert 0 in passed
        assert count / factor - 2 * count**0.5 < len(passed) < count / factor + 2 * count**0.5


@pytest.mark.parametrize(
    ("settings", "replicates", "expected"),
    [
        (None, 3, 3),
        # 9 epochs, rungs after 1 and 3: 1 + 2/3 + 6/9 of 9, and two more seeds for one in nine.
        ({}, 1, (1 + 2 / 3 + 6 / 9) / 9),
        ({}, 3, (1 + 2 / 3 + 6 / 9) / 9 + 2 / 9),
        ({"proxy": "score_share", "keep": 0.5}, 1, (1 + 2 / 3 + 6 / 9) / 18),
        # The second bracket has its only rung after 3 epochs.
        ({"brackets": 2}, 1, ((1 + 2 / 3 + 6 / 9) / 9 + (3 + 6 / 3) / 9) / 2),
    ],
)
def test_what_a_candidate_costs_on_average(settings, replicates, expected):
    chosen = None if settings is None else EarlyStopping(**settings)
    assert expected_seeds(chosen, Training(epochs=9), replicates) == pytest.approx(expected)


def test_the_reason_says_by_how_many():
    reason = reason_to_stop([0.5], [[0.1], [0.2], [0.9]], 1 / 3)
    assert reason == "is beaten by 2 of 3, and 1 in 3 goes on"


def early(folder: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "space__parameters": SPACE,
        "training__epochs": 5,
        "search__sampler": "random",
        "search__trials": "all",
        "search__early_stopping": {"first_rung": 1, "factor": 2},
    }
    return write_study(folder, **(settings | changes))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A study of 12 candidates, of which a third cannot learn."""
    return sculpt.run(early(tmp_path_factory.mktemp("early"), search__replicates=2))


@pytest.mark.slow
def test_stopped_trials_are_recorded_as_such(stopped: Results) -> None:
    table, tally = stopped.trials, stopped.tally()
    assert tally["total"] == 13 == tally["complete"] + tally["stopped"]
    assert 3 <= tally["stopped"] <= 10
    gone = table[table["state"] == "stopped"]
    assert set(gone["stopped_at"]) <= {1, 2, 4}
    assert gone["val_error_mean"].isna().all()
    assert (gone["error"].str.contains("val error .* is beaten by")).all()
    assert (gone["kept_parameters"] == stopped.complete["kept_parameters"].iloc[0]).all()
    assert (gone["seconds"] > 0).all()
    # A stopped trial costs what it was trained for, and one seed of it.
    assert (gone["epochs"] == gone["stopped_at"]).all()
    assert (stopped.complete["epochs"] == 2 * 5).all()
    shown = stopped.record(int(gone["trial"].iloc[0]))
    assert shown["state"] == "stopped"
    assert "is beaten by" in shown["error"]


@pytest.mark.slow
def test_stopped_trials_are_never_results(stopped: Results) -> None:
    complete = set(stopped.complete["trial"])
    assert {row["trial"] for row in sculpt.rank(stopped)["ranking"]} == complete
    assert set(sculpt.pareto(stopped, dominated=True)["trial"]) == complete
    for _, row in stopped.complete.iterrows():
        assert row["val_error_n"] == 2


@pytest.mark.slow
def test_each_was_judged_by_those_before_it(stopped: Results) -> None:
    """Replay the decisions, in the order of the trials, from what is recorded."""
    table = stopped.trials[stopped.trials["trial"] != "base"]
    for rung in ("1", "2", "4"):
        seen: list[list[float]] = []
        for _, row in table.iterrows():
            if rung not in row["rungs"]:
                continue
            own = [row["rungs"][rung]]
            goes_on = reason_to_stop(own, seen, 1 / 2) is None
            assert goes_on == (row["state"] == "complete" or row["stopped_at"] > int(rung))
            seen.append(own)


@pytest.mark.slow
def test_what_cannot_learn_is_stopped(stopped: Results) -> None:
    table = stopped.trials
    hopeless = table[table["params.training.learning_rate"] == 0.0001]
    assert len(hopeless) == 4
    assert (hopeless["state"] == "stopped").sum() >= 3  # the first of all may go on


@pytest.mark.slow
def test_what_diverged_is_judged_at_the_next_rung(tmp_path: Path) -> None:
    path = early(
        tmp_path,
        space__parameters={"widening": [2], "training.learning_rate": [0.1, 0.3, 1e30]},
        search__sampler="grid",
        search__early_stopping={"first_rung": 3, "factor": 2},
    )
    table = sculpt.run(path).trials
    last = table.iloc[-1]
    assert (last["params.training.learning_rate"], last["state"]) == (1e30, "stopped")
    assert last["stopped_at"] < 3
    assert list(last["rungs"]) == ["3"]
    assert last["error"].startswith(f"diverged in epoch {last['stopped_at']:.0f}: val error")


@pytest.mark.slow
def test_a_rung_is_an_epoch_of_the_whole_run(stopped: Results, tmp_path: Path) -> None:
    """Early stopping changes nothing of what is not stopped: same errors without it."""
    path = early(tmp_path, search__early_stopping=None, search__trials=7, search__replicates=1)
    whole = sculpt.run(path).complete
    ours = stopped.complete.set_index("trial")
    both = [trial for trial in whole["trial"] if trial in ours.index]
    assert 2 <= len(both) < len(whole) == 7
    for _, row in whole.set_index("trial").loc[both].iterrows():
        assert row["val_errors"] == ours.loc[row.name, "val_errors"][:1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objectives", "state"),
    [(["val_error"], "stopped"), (["val_error", "kept_macs"], "complete")],
)
def test_with_a_cost_beside_the_error_the_cheapest_goes_on(objectives, state, tmp_path):
    """Of three candidates the last cannot learn, and costs the least."""
    path = early(
        tmp_path,
        space__parameters={"blocks": [2, 1], "training.learning_rate": [0.3, 0.1]},
        space__conditions={"training.learning_rate": {"blocks": 2}},
        training__learning_rate=0.0001,
        search__sampler="grid",
        search__replicates=1,
        search__early_stopping={"factor": 2, "objectives": objectives},
    )
    last = sculpt.run(path).trials.iloc[-1]
    assert (last["params.blocks"], last["state"]) == (1, state)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["score_share"])
def test_a_proxy_judges_before_training(proxy: str, tmp_path: Path) -> None:
    space = {"widening": [2, 3, 4], "blocks": [1, 2]}
    results = sculpt.run(
        early(
            tmp_path,
            space__parameters=space,
            training__epochs=1,
            search__early_stopping={"proxy": proxy, "keep": 0.5},
        )
    )
    table = results.trials[results.trials["trial"] != "base"]
    gone = table[table["state"] == "stopped"]
    assert 1 <= len(gone) < len(table)
    assert set(gone["stopped_at"]) == {0}
    assert (gone["epochs"] == 0).all()
    assert gone["error"].str.contains(f"before training: {proxy} is beaten by").all()
    values = [[value] for value in table["judged_proxy"]]
    for place, (_, row) in enumerate(table.iterrows()):
        goes_on = reason_to_stop(values[place], values[:place], 0.5) is None
        assert goes_on == (row["state"] == "complete")
        if row["state"] == "complete":
            record = results.typed_record(int(row["trial"])).runs[0]
            assert badness(proxy, record) == row["judged_proxy"]


@pytest.mark.slow
def test_hyperband_judges_each_bracket_for_itself(tmp_path: Path) -> None:
    settings = {"factor": 2, "brackets": 2}
    path = early(tmp_path, search__early_stopping=settings, search__replicates=1, search__trials=7)
    table = sculpt.run(path).trials
    table = table[table["trial"] != "base"]
    for _, row in table.iterrows():
        first = "1" if row["trial"] % 2 == 0 else "2"
        assert next(iter(row["rungs"])) == first


class InterruptOnce(Watcher):
    """Presses Ctrl-C once, when a candidate has passed its first rung."""

    def __init__(self) -> None:
        self.epochs = -1

    def trial_started(self, label: int | str, params: dict[str, Any], epochs: int) -> None:
        if label != "base":
            self.epochs = 0

    def epoch_finished(self, epoch: Epoch) -> None:
        if self.epochs >= 0:
            self.epochs += 1
            if self.epochs == 3:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_an_interrupted_trial_goes_on_and_is_judged_once(tmp_path: Path) -> None:
    path = early(tmp_path, search__trials=6, search__checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        sculpt.run(path, watcher=InterruptOnce())
    results = sculpt.run(path)
    tally = results.tally()
    assert tally["complete"] + tally["stopped"] == tally["total"] == 6
    assert tally["interrupted"] == 1
    table = results.trials
    cut = table[table["state"] == "interrupted"].iloc[0]
    retried = table[table["trial"].map(lambda t: t != "base" and t > cut["trial"])].iloc[0]
    assert cut["rungs"].items() <= retried["rungs"].items()
    if retried["state"] == "complete":
        resumed = results.record(int(retried["trial"]))["runs"][0]["training"]["resumed_at"]
        assert resumed[0] >= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 1}, "early_stopping.factor: must be greater than or equal to 2, but got 1"),
        ({"first_rung": 0}, "early_stopping.first_rung"),
        ({"keep": 1.5}, "early_stopping.keep"),
        ({"proxy": "luck"}, "early_stopping.proxy: must be 'effective_nodes'"),
        ({"objectives": ["training_seconds"]}, "early_stopping.objectives"),
        ({"objectives": ["val_eror"]}, "early_stopping.objectives"),
        ({"objectives": []}, "early_stopping.objectives"),
        ({"rungs": 3}, "early_stopping.rungs"),
    ],
)
def test_faults_of_the_file(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_study(early(tmp_path, search__early_stopping=settings))
