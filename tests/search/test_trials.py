"""Trials that die are found, and tried again exactly once."""

import os
import signal
import subprocess
import sys
import time
import warnings

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from outcomes import (
    Objective,
    die,
    fail,
    interrupt,
    is_retry,
    nonzero,
    refuse,
    run_one,
    stop,
    succeed,
)

from sculpt.storage import process_identity, study_storage
from sculpt.storage import trials as trials_module
from sculpt.storage.failures import LostStorageError
from sculpt.storage.process_identity import has_ended, this_process
from sculpt.storage.trials import ClaimedTrial, Trials, original_number

KILLED = [-signal.SIGKILL]


def finish(trials: Trials, limit: int) -> None:
    """Do what a worker does, until nothing is left to do."""
    for _ in range(1000):
        trials.requeue()
        if not run_one(trials, succeed, limit):
            if trials.counts()["running"] + trials.counts()["queued"] == 0:
                return
            time.sleep(0.02)
    pytest.fail(f"it never ends: {trials.counts()}")


def feasible(trials: Trials) -> int:
    """Count the original trials of which no attempt is marked as infeasible."""
    found = trials.read()
    marked = {original_number(trial) for trial in found if "infeasible" in trial.user_attrs}
    return len({trial.number for trial in found if not is_retry(trial)} - marked)


def feasible_counted(trials: Trials) -> int:
    """Count the same from what `counts` says."""
    found = trials.counts()
    return sum(found[name] for name in ("complete", "stopped", "failed", "running", "queued"))


# --- processes that die ----------------------------------------------------------------------


@pytest.fixture
def far_away(monkeypatch):
    """Let processes of this machine be known by their silence only, as another one's are."""
    monkeypatch.setattr(study_storage, "has_ended", lambda process: False)


@pytest.mark.slow
def test_a_trial_killed_in_the_middle_is_retried_once_with_its_parameters(trials, run, far_away):
    assert run(1, "die in trial") == KILLED
    finish(trials, 3)
    dead, *others = trials.read()
    (retry,) = [trial for trial in others if is_retry(trial)]
    assert dead.state is TrialState.FAIL
    assert set(dead.params) == {"x", "c"}
    assert (retry.params, retry.distributions) == (dead.params, dead.distributions)
    assert retry.user_attrs == dead.user_attrs == {"kind": "candidate"}
    assert (retry.state, retry.value) == (TrialState.COMPLETE, dead.params["x"])
    assert original_number(retry) == original_number(dead) == dead.number == 0
    assert nonzero(trials) == {"complete": 3, "interrupted": 1}


@pytest.mark.slow
def test_a_trial_killed_before_its_heartbeat_thread_is_retried(trials, run, far_away):
    assert run(1, "die before a heartbeat thread") == KILLED
    assert nonzero(trials) == {"running": 1}
    finish(trials, 1)
    assert nonzero(trials) == {"complete": 1, "interrupted": 1}


def test_a_trial_killed_while_it_is_claimed_stays_queued(trials, run):
    assert run(1, "die while claiming", 1) == KILLED
    assert nonzero(trials) == {"queued": 1}
    assert trials.requeue() == 0
    finish(trials, 1)
    assert nonzero(trials) == {"complete": 1}


def test_a_worker_that_ended_on_this_machine_is_not_waited_for(trials, run, storage):
    storage.allow_silence(10**6)
    assert run(1, "die in trial") == KILLED
    assert trials.requeue() == 1
    assert nonzero(trials) == {"interrupted": 1, "queued": 1}


def test_of_processes_only_what_is_certain_is_said():
    """Living ones, those of other machines, and where nothing can be seen, have not ended."""
    kernel, pid, started = this_process().rsplit(" ", 2)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        name = f"{kernel} {other.pid} {process_identity._started(other.pid)}"
        assert not has_ended(name)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(name), "also while its parent has not asked how it ended"
    assert has_ended(name)
    assert has_ended(f"{kernel} {pid} 1{started}"), "another process has its number now"
    assert not has_ended(f"{kernel} {pid} {started}")
    assert not has_ended(f"another {kernel} {other.pid} 1")
    assert not has_ended("not a name")
    assert not has_ended(f"{kernel} {10**30} 1")


def test_a_process_that_is_hidden_has_not_ended(monkeypatch, tmp_path):
    """As another user's is where /proc is mounted so."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        kernel = process_identity._kernel()
        name = f"{kernel} {other.pid} {process_identity._started(other.pid)}"
        monkeypatch.setattr(process_identity, "_kernel", lambda: kernel)
        monkeypatch.setattr(process_identity, "PROC", tmp_path)
        assert not has_ended(name)
        other.kill()
    assert has_ended(name)


def test_without_proc_processes_have_no_names(monkeypatch, tmp_path, trials):
    name = this_process()
    monkeypatch.setattr(process_identity, "PROC", tmp_path)
    assert this_process() is None
    assert not has_ended(name)
    run_one(trials, succeed)
    assert nonzero(trials) == {"complete": 1}


@pytest.mark.slow
def test_a_kill_while_requeueing_loses_and_doubles_nothing(trials, run):
    for _ in range(3):
        run_one(trials, interrupt)
    assert run(1, "die while requeueing") == KILLED
    assert [trial.state for trial in trials.read()].count(TrialState.WAITING) == 1
    assert nonzero(trials) == {"interrupted": 3, "queued": 3}  # two of them owed
    assert trials.requeue() == 2
    assert trials.requeue() == 0
    assert nonzero(trials) == {"interrupted": 3, "queued": 3}
    assert sorted(original_number(trial) for trial in trials.read()[3:]) == [0, 1, 2]


@pytest.mark.slow
def test_processes_that_requeue_at_once_double_nothing(trials, run):
    for _ in range(10):
        run_one(trials, interrupt)
    assert run(4, "requeue") == [0] * 4
    assert nonzero(trials) == {"interrupted": 10, "queued": 10}
    assert [original_number(trial) for trial in trials.read()[10:]] == list(range(10))


@pytest.mark.slow
def test_a_late_waker_cannot_record_its_result(trials, start, wait_until, tmp_path):
    process = start("sleep in trial")
    (tmp_path / "go").touch()
    wait_until(lambda: trials.read() and trials.requeue())
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert (tmp_path / "dropped").exists()
    run_one(trials, succeed)
    assert trials.requeue() == 0
    first, second = trials.read()
    assert (first.state, first.values) == (TrialState.FAIL, None)
    assert (second.state, second.value) == (TrialState.COMPLETE, first.params["x"])


def test_signs_of_life_that_cannot_be_given_end_the_run(trials, storage):
    """As with a grace period of so many seconds that no thread can wait for them."""
    storage.heartbeat_seconds = 10**300
    claimed = trials.claim(1)
    assert claimed
    with pytest.raises(LostStorageError, match=r"signs of life, but .*OverflowError"):
        trials.run(claimed, succeed)
    assert claimed.silent
    assert nonzero(trials) == {"interrupted": 1, "queued": 1}


# --- what is owed ----------------------------------------------------------------------------


def test_ctrl_c_is_an_interruption_and_an_error_is_not(trials):
    run_one(trials, interrupt)
    run_one(trials, fail)
    run_one(trials, stop)
    run_one(trials, refuse)
    expected = {"interrupted": 1, "queued": 1, "failed": 1, "stopped": 1, "infeasible": 1}
    assert nonzero(trials) == expected  # owed to the queue
    assert trials.requeue() == 1
    assert nonzero(trials) == expected  # in the queue
    assert trials.requeue() == 0


def test_a_trial_failed_but_not_yet_retried_is_owed(trials):
    run_one(trials, die)
    assert nonzero(trials) == {"interrupted": 1, "queued": 1}
    assert trials.requeue() == 1
    assert nonzero(trials) == {"interrupted": 1, "queued": 1}


def test_a_living_trial_is_left_alone(trials, storage):
    storage.allow_silence(60)
    trials.claim(1)
    assert trials.requeue() == 0
    assert nonzero(trials) == {"running": 1}


@pytest.mark.parametrize("max_retries", [0, 2])
def test_retries_run_out(trials, monkeypatch, max_retries):
    monkeypatch.setattr(trials_module, "MAX_RETRIES", max_retries)
    run_one(trials, die, limit=1)
    x = trials.read()[0].params["x"]
    for _ in range(max_retries):
        assert trials.requeue() == 1
        run_one(trials, die, limit=1)
    assert trials.requeue() == 0
    expected = {"failed": 1, "interrupted": max_retries}
    assert nonzero(trials) == {k: v for k, v in expected.items() if v}
    assert [trial.params["x"] for trial in trials.read()] == [x] * (max_retries + 1)
    assert trials.claim(1) is None  # a failed trial keeps its place


def test_attempts_that_are_ended_on_purpose_do_not_run_out(trials, monkeypatch):
    """A study that is run in slices ends each attempt at a long trial, however many it takes."""
    monkeypatch.setattr(trials_module, "MAX_RETRIES", 2)
    run_one(trials, die, limit=1)  # one that did come to nothing
    for _ in range(5):
        assert trials.requeue() == 1
        run_one(trials, interrupt, limit=1)
    assert trials.requeue() == 1
    run_one(trials, die, limit=1)
    assert nonzero(trials) == {"interrupted": 7, "queued": 1}
    assert trials.requeue() == 1
    run_one(trials, die, limit=1)
    assert trials.requeue() == 0
    assert nonzero(trials) == {"interrupted": 7, "failed": 1}


def test_attempts_that_brought_a_trial_further_do_not_run_out(trials, monkeypatch):
    monkeypatch.setattr(trials_module, "MAX_RETRIES", 2)

    def killed_after(done: int) -> Objective:
        def objective(claimed: ClaimedTrial) -> list[float]:
            claimed.note_progress(done)  # what it finds when it begins
            return die(claimed)

        return objective

    for done in (0, 3, 4, 7, 9, 12):
        run_one(trials, killed_after(done), limit=1)
        assert trials.requeue() == 1
    for _ in range(2):  # after the attempt that found 12, two that came no further
        run_one(trials, killed_after(12), limit=1)
        left = trials.requeue()
    assert left == 0
    assert nonzero(trials) == {"interrupted": 7, "failed": 1}


def test_a_marked_trial_takes_no_place_and_is_not_tried_again(trials):
    def mark_and_interrupt(claimed: ClaimedTrial) -> list[float]:
        claimed.write({"infeasible": "too wide"})
        raise KeyboardInterrupt

    run_one(trials, mark_and_interrupt, limit=1)
    assert trials.requeue() == 0
    run_one(trials, refuse, limit=1)
    run_one(trials, interrupt, limit=1)
    trials.requeue()
    run_one(trials, refuse, limit=1)  # by the second attempt: its first one frees its place, too
    run_one(trials, succeed, limit=1)
    assert trials.claim(1) is None
    assert nonzero(trials) == {"complete": 1, "interrupted": 1, "infeasible": 3}


@pytest.mark.slow
def test_the_counts_add_up_to_the_original_trials(trials):
    outcomes = [succeed, fail, stop, refuse, die, succeed, interrupt, die, refuse]
    for i in range(40):
        run_one(trials, outcomes[i % len(outcomes)])
        assert feasible(trials) == feasible_counted(trials)
        trials.requeue()
    while trials.counts()["queued"]:
        run_one(trials, fail)
        trials.requeue()
    assert trials.claim(10**6)
    for x in (0.5, 0.6):
        trials.study.enqueue_trial({"x": x})
    found = trials.counts()
    assert min(found.values()) > 0, found
    assert feasible(trials) == feasible_counted(trials)
    assert sum(found.values()) == len(trials.read())
    limit = feasible(trials)  # it counts the same trials, and lets those run that are queued
    assert all(trials.claim(limit) for _ in range(2))
    assert trials.claim(limit) is None
    assert trials.claim(limit + 1)


def test_retries_are_read_as_optuna_reads_them(trials):
    for _ in range(3):
        run_one(trials, interrupt)
        trials.requeue()
    read = RetryHeartbeatStaleTrialCallback.retried_trial_number
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        assert [read(trial) for trial in trials.read()] == [None, 0, 0, 0]
        history = [RetryHeartbeatStaleTrialCallback.retry_history(t) for t in trials.read()]
    assert history == [[], [0], [0, 1], [0, 1, 2]]
    assert [is_retry(trial) for trial in trials.read()] == [False, True, True, True]
    assert [original_number(trial) for trial in trials.read()] == [0, 0, 0, 0]
