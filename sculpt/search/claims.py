"""What is done, running, dead and owed in one study, read off its trials.

A trial that fails by itself carries the user attribute `error`, set before it raises. A failed
trial without it was interrupted (killed, Ctrl-C, node lost) and is owed another attempt.
"""

import copy
import warnings
from collections.abc import Iterable

from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from sculpt.search.storage import INFEASIBLE, RETRY_OF, storage_of

ERROR = "error"
"""User attribute of a trial that failed by itself: what went wrong."""

MAX_RETRIES = 3
"""Attempts after the first; a trial interrupted more often counts as failed."""

_ATTEMPTS = "retry_history"  # Optuna's system attribute: the numbers of all earlier attempts


def is_retry(trial: FrozenTrial) -> bool:
    """Return whether `trial` is a further attempt at an earlier one."""
    # Read directly: Optuna's own reader warns at each call that it is experimental.
    return RETRY_OF in trial.system_attrs


def original_number(trial: FrozenTrial) -> int:
    """Return the number of the first attempt, under which checkpoints are kept."""
    return int(trial.system_attrs.get(RETRY_OF, trial.number))


def requeue_interrupted(study: Study, *, max_retries: int = MAX_RETRIES) -> int:
    """Queue every interrupted trial again, with its parameters and user attributes.

    Running trials whose process fell silent are failed first. Any number of processes may call
    this at any time, and be killed in it: each attempt is followed by one retry at most, and an
    attempt that is still owed its retry gets it from the next call.

    Args:
        study: A study whose storage comes from `open_storage`.
        max_retries: Most attempts after the first.

    Returns:
        The number of trials queued by this call.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are experimental
        retry = RetryHeartbeatStaleTrialCallback(max_retry=max_retries)
        # One lock around looking and queueing, or two processes would queue the same retry.
        with storage_of(study).lock():
            fail_stale_trials(study)
            trials = study.get_trials(deepcopy=False)
            retried = _retried(trials)
            owed = [trial for trial in trials if _is_owed(trial, retried, max_retries)]
            for trial in owed:
                # A copy, because Optuna's callback appends to the list inside the trial it is
                # given, which here would be the one in the study's cache.
                retry(study, copy.deepcopy(trial))
    return len(owed)


def counts(study: Study, *, max_retries: int = MAX_RETRIES) -> dict[str, int]:
    """Count a study's trials by what became of them.

    complete + stopped + failed + running + queued is the number of original trials that are
    feasible, at any moment; nothing is left to do when running + queued is 0.

    Args:
        study: The study.
        max_retries: As given to `requeue_interrupted`.

    Returns:
        The number of trials that are `complete`, `stopped` early, `failed` (by themselves or
        interrupted too often), `running`, `queued` (or owed to the queue by
        `requeue_interrupted`), `interrupted` (attempts that are retried, or are about to be) and
        `infeasible` (marked so, in whatever state).
    """
    trials = study.get_trials(deepcopy=False)
    retried = _retried(trials)
    result = dict.fromkeys(
        ("complete", "stopped", "failed", "running", "queued", "interrupted", "infeasible"), 0
    )
    for trial in trials:
        owed = _is_owed(trial, retried, max_retries)
        if owed or trial.number in retried:
            result["interrupted"] += 1
        if owed:
            # Optuna, too, fails silent trials, whenever it is asked for one. Without this line a
            # worker might see nothing queued and nothing running, and leave with a retry owed.
            result["queued"] += 1
        elif trial.number not in retried:
            marked = INFEASIBLE in trial.user_attrs
            result["infeasible" if marked else _NAMES[trial.state]] += 1
    return result


_NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "queued",
}


def _retried(trials: Iterable[FrozenTrial]) -> set[int]:
    return {number for trial in trials for number in trial.system_attrs.get(_ATTEMPTS, ())}


def _is_owed(trial: FrozenTrial, retried: set[int], max_retries: int) -> bool:
    return (
        trial.state is TrialState.FAIL
        and ERROR not in trial.user_attrs
        and INFEASIBLE not in trial.user_attrs  # another attempt would be so, too
        and trial.number not in retried
        and len(trial.system_attrs.get(_ATTEMPTS, ())) < max_retries
    )
