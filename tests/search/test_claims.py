"""Trials that die are found, and tried again exactly once."""

import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from sculpt.search.storage.claims import (
    counts,
    excuse,
    is_retry,
    note_progress,
    original_number,
    requeue_interrupted,
)
from sculpt.search.storage.study_storage import StudyFull, open_storage, storage_of

Run = Callable[..., list[int]]
Start = Callable[..., subprocess.Popen[str]]
WaitUntil = Callable[[Callable[[], object]], None]

KILLED = [-signal.SIGKILL]


def succeed(trial: optuna.Trial) -> float:
    trial.suggest_categorical("c", ["a", "b"])
    return trial.suggest_float("x", 0, 1)


def fail(trial: optuna.Trial) -> float:
    trial.set_user_attr("error", "it broke")
    raise RuntimeError("it broke")


def stop(trial: optuna.Trial) -> float:
    raise optuna.TrialPruned


def refuse(trial: optuna.Trial) -> float:
    trial.set_user_attr("infeasible", "too wide")
    raise optuna.TrialPruned


def interrupt(trial: optuna.Trial) -> float:
    trial.suggest_float("x", 0, 1)
    raise KeyboardInterrupt


def run_one(study: optuna.Study, objective: Callable[[optuna.Trial], float]) -> None:
    try:
        study.optimize(objective, n_trials=1, catch=(Exception,))
    except KeyboardInterrupt:
        assert objective not in (succeed, fail, stop, refuse)


def finish(study: optuna.Study) -> None:
    """Do what a worker does, until nothing is left to do."""
    for _ in range(1000):
        requeue_interrupted(study)
        try:
            run_one(study, succeed)
        except StudyFull:
            if counts(study)["running"] + counts(study)["queued"] == 0:
                return
            time.sleep(0.02)
    pytest.fail(f"it never ends: {counts(study)}")


def feasible(study: optuna.Study) -> int:
    """Count the original trials of which no attempt is marked as infeasible."""
    trials = study.trials
    marked = {original_number(trial) for trial in trials if "infeasible" in trial.user_attrs}
    return len({trial.number for trial in trials if not is_retry(trial)} - marked)


def feasible_counted(study: optuna.Study, **options: int) -> int:
    """Count the same from what `counts` says."""
    found = counts(study, **options)
    names = ("complete", "stopped", "failed", "running", "queued")
    return sum(found[name] for name in names)


def nonzero(study: optuna.Study, **options: int) -> dict[str, int]:
    return {name: count for name, count in counts(study, **options).items() if count}


# --- processes that die ----------------------------------------------------------------------


def test_a_trial_killed_in_the_middle_is_retried_once_with_its_parameters(
    study: optuna.Study, run: Run
) -> None:
    assert run(1, "die in trial") == KILLED
    storage_of(study).limits[1] = 3
    finish(study)
    dead, *others = study.trials
    (retry,) = [trial for trial in others if is_retry(trial)]
    assert dead.state is TrialState.FAIL
    assert set(dead.params) == {"x", "c"}
    assert (retry.params, retry.distributions) == (dead.params, dead.distributions)
    assert retry.user_attrs == dead.user_attrs == {"kind": "candidate"}
    assert (retry.state, retry.value) == (TrialState.COMPLETE, dead.params["x"])
    assert original_number(retry) == original_number(dead) == dead.number == 0
    assert nonzero(study) == {"complete": 3, "interrupted": 1}


def test_a_trial_killed_before_its_heartbeat_thread_is_retried(
    study: optuna.Study, run: Run
) -> None:
    assert run(1, "die before a heartbeat thread") == KILLED
    assert nonzero(study) == {"running": 1}
    storage_of(study).limits[1] = 1
    finish(study)
    assert nonzero(study) == {"complete": 1, "interrupted": 1}


def test_a_trial_killed_while_it_is_claimed_stays_queued(study: optuna.Study, run: Run) -> None:
    assert run(1, "die while claiming", 1) == KILLED
    assert nonzero(study) == {"queued": 1}
    assert requeue_interrupted(study) == 0
    storage_of(study).limits[1] = 1
    finish(study)
    assert nonzero(study) == {"complete": 1}


def test_a_kill_while_requeueing_loses_and_doubles_nothing(study: optuna.Study, run: Run) -> None:
    for _ in range(3):
        run_one(study, interrupt)
    assert run(1, "die while requeueing") == KILLED
    assert len(study.get_trials(states=[TrialState.WAITING])) == 1
    assert nonzero(study) == {"interrupted": 3, "queued": 3}  # two of them owed
    assert requeue_interrupted(study) == 2
    assert requeue_interrupted(study) == 0
    assert nonzero(study) == {"interrupted": 3, "queued": 3}
    assert sorted(original_number(trial) for trial in study.trials[3:]) == [0, 1, 2]


def test_processes_that_requeue_at_once_double_nothing(study: optuna.Study, run: Run) -> None:
    for _ in range(10):
        run_one(study, interrupt)
    assert run(4, "requeue") == [0] * 4
    assert nonzero(study) == {"interrupted": 10, "queued": 10}
    assert [original_number(trial) for trial in study.trials[10:]] == list(range(10))


def test_a_late_waker_cannot_record_its_result(
    study: optuna.Study, start: Start, wait_until: WaitUntil, tmp_path: Path
) -> None:
    process = start("sleep in trial")
    (tmp_path / "go").touch()
    wait_until(lambda: study.trials and requeue_interrupted(study))
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    # Optuna ends the process although it was told to catch: a runner must expect that.
    assert process.returncode == 1
    assert "Cannot tell a FAIL trial" in errors
    run_one(study, succeed)
    assert requeue_interrupted(study) == 0
    first, second = study.trials
    assert (first.state, first.values) == (TrialState.FAIL, None)
    assert (second.state, second.value) == (TrialState.COMPLETE, first.params["x"])


# --- what is owed ----------------------------------------------------------------------------


def test_ctrl_c_is_an_interruption_and_an_error_is_not(study: optuna.Study) -> None:
    run_one(study, interrupt)
    run_one(study, fail)
    run_one(study, stop)
    run_one(study, refuse)
    expected = {"interrupted": 1, "queued": 1, "failed": 1, "stopped": 1, "infeasible": 1}
    assert nonzero(study) == expected  # owed to the queue
    assert requeue_interrupted(study) == 1
    assert nonzero(study) == expected  # in the queue
    assert requeue_interrupted(study) == 0


def test_a_trial_failed_but_not_yet_retried_is_owed(study: optuna.Study) -> None:
    # What Optuna leaves behind when it finds a silent trial while it is asked for another.
    trial_id = storage_of(study).create_new_trial(1)
    storage_of(study).set_trial_state_values(trial_id, TrialState.FAIL)
    assert nonzero(study) == {"interrupted": 1, "queued": 1}
    assert requeue_interrupted(study) == 1
    assert nonzero(study) == {"interrupted": 1, "queued": 1}


def test_a_living_trial_is_left_alone(storage_url: str) -> None:
    storage = open_storage(storage_url, create=True, grace_seconds=60)
    study = optuna.create_study(storage=storage)
    storage.create_new_trial(1)
    assert requeue_interrupted(study) == 0
    assert nonzero(study) == {"running": 1}
    storage.close()


@pytest.mark.parametrize("max_retries", [0, 2])
def test_retries_run_out(study: optuna.Study, max_retries: int) -> None:
    storage_of(study).limits[1] = 1
    run_one(study, interrupt)
    x = study.trials[0].params["x"]
    for _ in range(max_retries):
        assert requeue_interrupted(study, max_retries=max_retries) == 1
        run_one(study, interrupt)
    assert requeue_interrupted(study, max_retries=max_retries) == 0
    expected = {"failed": 1, "interrupted": max_retries}
    assert nonzero(study, max_retries=max_retries) == {k: v for k, v in expected.items() if v}
    assert [trial.params["x"] for trial in study.trials] == [x] * (max_retries + 1)
    with pytest.raises(StudyFull):  # a failed trial keeps its place
        run_one(study, succeed)


def test_attempts_that_are_ended_on_purpose_do_not_run_out(study: optuna.Study) -> None:
    """A study that is run in slices ends each attempt at a long trial, however many it takes."""

    def end_on_purpose(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        excuse(trial)
        raise KeyboardInterrupt

    storage_of(study).limits[1] = 1
    run_one(study, interrupt)  # one that did come to nothing
    for _ in range(5):
        assert requeue_interrupted(study, max_retries=2) == 1
        run_one(study, end_on_purpose)
    assert requeue_interrupted(study, max_retries=2) == 1
    run_one(study, interrupt)
    assert nonzero(study, max_retries=2) == {"interrupted": 7, "queued": 1}
    assert requeue_interrupted(study, max_retries=2) == 1
    run_one(study, interrupt)
    assert requeue_interrupted(study, max_retries=2) == 0
    assert nonzero(study, max_retries=2) == {"interrupted": 7, "failed": 1}


def test_attempts_that_brought_a_trial_further_do_not_run_out(study: optuna.Study) -> None:
    def killed_after(done: int) -> Callable[[optuna.Trial], float]:
        def objective(trial: optuna.Trial) -> float:
            trial.suggest_float("x", 0, 1)
            note_progress(trial, done)  # what it finds when it begins
            raise KeyboardInterrupt

        return objective

    storage_of(study).limits[1] = 1
    for done in (0, 3, 4, 7, 9, 12):
        run_one(study, killed_after(done))
        assert requeue_interrupted(study, max_retries=2) == 1
    for _ in range(2):  # after the attempt that found 12, two that came no further
        run_one(study, killed_after(12))
        left = requeue_interrupted(study, max_retries=2)
    assert left == 0
    assert nonzero(study, max_retries=2) == {"interrupted": 7, "failed": 1}


def test_a_marked_trial_takes_no_place_and_is_not_tried_again(study: optuna.Study) -> None:
    def mark_and_interrupt(trial: optuna.Trial) -> float:
        trial.set_user_attr("infeasible", "too wide")
        raise KeyboardInterrupt

    storage_of(study).limits[1] = 1
    with pytest.raises(KeyboardInterrupt):
        study.optimize(mark_and_interrupt, n_trials=1)
    assert requeue_interrupted(study) == 0
    run_one(study, refuse)
    run_one(study, interrupt)
    requeue_interrupted(study)
    run_one(study, refuse)  # found out by the second attempt: its first one frees its place, too
    run_one(study, succeed)
    with pytest.raises(StudyFull):
        run_one(study, succeed)
    assert nonzero(study) == {"complete": 1, "interrupted": 1, "infeasible": 3}


def test_the_counts_add_up_to_the_original_trials(study: optuna.Study) -> None:
    outcomes = [succeed, fail, stop, refuse, interrupt, succeed, interrupt, interrupt, refuse]
    for i in range(40):
        run_one(study, outcomes[i % len(outcomes)])
        assert feasible(study) == feasible_counted(study, max_retries=2)
        requeue_interrupted(study, max_retries=2)
    study.enqueue_trial({"x": 0.5})
    study.enqueue_trial({"x": 0.6})
    storage_of(study).create_new_trial(1)  # pops nothing: the queue is Study.ask's
    found = counts(study, max_retries=2)
    assert min(found.values()) > 0, found
    assert feasible(study) == feasible_counted(study, max_retries=2)
    assert sum(found.values()) == len(study.trials)

    storage_of(study).limits[1] = feasible(study)  # the limit counts the same trials
    with pytest.raises(StudyFull, match=f"{feasible(study)} trials"):
        storage_of(study).create_new_trial(1)
    storage_of(study).limits[1] += 1
    storage_of(study).create_new_trial(1)


def test_retries_are_read_as_optuna_reads_them(study: optuna.Study) -> None:
    for _ in range(3):
        run_one(study, interrupt)
        requeue_interrupted(study)
    read = RetryHeartbeatStaleTrialCallback.retried_trial_number
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        assert [read(trial) for trial in study.trials] == [None, 0, 0, 0]
        history = [RetryHeartbeatStaleTrialCallback.retry_history(t) for t in study.trials]
    assert history == [[], [0], [0, 1], [0, 1, 2]]
    assert [is_retry(trial) for trial in study.trials] == [False, True, True, True]
    assert [original_number(trial) for trial in study.trials] == [0, 0, 0, 0]
