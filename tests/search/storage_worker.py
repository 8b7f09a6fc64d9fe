"""A process that the storage tests start, and that mostly gets killed.

    python storage_worker.py ROLE FOLDER [LIMIT [SAMPLER WORKER]]

FOLDER holds the study's URL in the file `url`, and the files by which processes meet: each says it
is ready, and starts when `go` appears. Every execution of an objective is one line in FOLDER/log.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from sculpt.config import Study
from sculpt.search.sampling.samplers import make_sampler
from sculpt.search.sampling.space import suggest
from sculpt.storage.study_storage import StudyStorage, open_storage
from sculpt.storage.trials import ClaimedTrial, Trials

SEARCHED = Study.model_validate(
    {
        "study": "s",
        "data": {"name": "digits"},
        "model": {"name": "resnet"},
        "space": {
            "parameters": {
                "a": {"low": 1, "high": 2},
                "b": [[1], [1, 2], [1, 2, 3]],
                "c": {"low": 0.0, "high": 0.4, "step": 0.1},
            }
        },
        "training": {"epochs": 1},
        "search": {"trials": 31},
    }
)
"""A study over 30 points."""

GRACE_SECONDS = 2  # where a process is to be found dead; elsewhere, a slow one never is


def die(*_: object, **__: object) -> None:
    """Leave as `kill -9` does: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def log(claimed: ClaimedTrial) -> None:
    """Append a line; one write of O_APPEND is never mixed with another."""
    with open(folder / "log", "a") as file:
        file.write(f"{claimed.trial.number}\n")


def sleep_first(method: Callable[..., object]) -> Callable[..., object]:
    """Widen the gap between counting and creating, where a race would show."""

    def slow(*args: object) -> object:
        time.sleep(0.02)
        return method(*args)

    return slow


def short(claimed: ClaimedTrial) -> list[float]:
    """Take long enough for others to ask for the same trial."""
    log(claimed)
    x = claimed.trial.suggest_float("x", 0, 1)
    time.sleep(0.02)
    return [x]


def die_in_trial(claimed: ClaimedTrial) -> list[float]:
    """Get killed after some parameters are drawn."""
    log(claimed)
    claimed.trial.set_user_attr("kind", "candidate")
    claimed.trial.suggest_float("x", 0, 1)
    claimed.trial.suggest_categorical("c", ["a", "b"])
    die()
    return [0.0]


def sleep_in_trial(claimed: ClaimedTrial) -> list[float]:
    """Freeze, as a suspended machine does, until the parent sends SIGCONT."""
    claimed.trial.suggest_float("x", 0, 1)
    os.kill(os.getpid(), signal.SIGSTOP)
    return [0.0]


def search(claimed: ClaimedTrial) -> list[float]:
    """Draw a configuration as `sculpt run` does, and take no time to judge it."""
    with storage.lock():
        params = suggest(claimed.trial, SEARCHED.space)
    return [float(params["a"]) + len(params["b"]), float(params["c"])]


def work(trials: Trials, objective: Callable[[ClaimedTrial], list[float]] = short) -> None:
    """Run trials until there are as many as the limit."""
    while True:
        trials.requeue()
        claimed = trials.claim(limit)
        if claimed is None:
            return
        trials.run(claimed, objective)


if __name__ == "__main__":
    role, folder = sys.argv[1], Path(sys.argv[2])
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.002)
    grace = 60 if role in ("work", "search") else GRACE_SECONDS
    url = (folder / "url").read_text()
    storage = open_storage(url, create=True, grace_seconds=grace)
    directions = ["minimize"] * (2 if role == "search" else 1)
    study = optuna.create_study(
        study_name="s", storage=storage, directions=directions, load_if_exists=True
    )
    trials = Trials(study, storage)
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else 10**6
    if role == "work":
        StudyStorage.create_new_trial = sleep_first(StudyStorage.create_new_trial)
        work(trials)
    elif role == "search":
        settings = SEARCHED.search.model_copy(update={"sampler": sys.argv[4]})
        searched = SEARCHED.model_copy(update={"search": settings})
        study.sampler = make_sampler(searched)
        work(trials, search)
    elif role == "die in trial":
        trials.run(trials.claim(limit), die_in_trial)
    elif role == "die before a heartbeat thread":
        trials.claim(limit)
        die()
    elif role == "die while claiming":
        RDBStorage.record_heartbeat = die
        trials.claim(limit)
    elif role == "die while requeueing":
        add = optuna.Study.add_trial
        optuna.Study.add_trial = lambda *args: (
            die() if study.get_trials(states=[optuna.trial.TrialState.WAITING]) else add(*args)
        )
        trials.requeue()
    elif role == "hold":
        with storage.lock():
            (folder / "held").touch()
            time.sleep(600)
    elif role == "requeue":
        trials.requeue()
    elif role == "sleep in trial":
        ended = trials.run(trials.claim(limit), sleep_in_trial)
        (folder / ("told" if ended else "dropped")).touch()
