"""Ends that a trial can come to, for the tests of trials, and a worker that runs one trial."""

from collections.abc import Callable
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial, TrialState

from sculpt.storage.trials import ClaimedTrial, Trials, original_number

Objective = Callable[[ClaimedTrial], list[float]]


def succeed(claimed: ClaimedTrial) -> list[float]:
    claimed.trial.suggest_categorical("c", ["a", "b"])
    return [claimed.trial.suggest_float("x", 0, 1)]


def fail(claimed: ClaimedTrial) -> list[float]:
    claimed.write({"error": "it broke"})
    raise RuntimeError("it broke")


def stop(claimed: ClaimedTrial) -> list[float]:
    raise optuna.TrialPruned


def refuse(claimed: ClaimedTrial) -> list[float]:
    claimed.write({"infeasible": "too wide"})
    raise optuna.TrialPruned


def die(claimed: ClaimedTrial) -> list[float]:
    """Come to what a killed worker's trial comes to, once it is found to be silent."""
    claimed.trial.suggest_float("x", 0, 1)
    claimed.storage.set_trial_state_values(claimed.trial_id, TrialState.FAIL)
    return [0.0]


def interrupt(claimed: ClaimedTrial) -> list[float]:
    """Be ended on purpose, as by Ctrl-C."""
    claimed.trial.suggest_float("x", 0, 1)
    raise KeyboardInterrupt


def run_one(trials: Trials, objective: Objective, limit: int = 10**6) -> bool:
    """Run a trial as a worker does, if there is one to run; return whether there was."""
    claimed = trials.claim(limit)
    if claimed:
        with suppress(KeyboardInterrupt, RuntimeError):
            trials.run(claimed, objective)
    return claimed is not None


def nonzero(trials: Trials) -> dict[str, int]:
    return {name: count for name, count in trials.counts().items() if count}


def is_retry(trial: FrozenTrial) -> bool:
    return original_number(trial) != trial.number
