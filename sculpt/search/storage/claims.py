"""What is done, running, dead and owed in one study, read off its trials.

A trial that fails by itself carries the user attribute `error`, set before it raises. A failed
trial without it was interrupted (killed, Ctrl-C, node lost) and is owed another attempt.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from optuna import Study, Trial
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from sculpt.search.storage.experimental import experimental_accepted
from sculpt.search.storage.stored_trials import StoredTrial
from sculpt.search.storage.study_storage import (
    ATTEMPTS,
    EXCUSED,
    INFEASIBLE,
    PROGRESS,
    RETRY_OF,
    storage_of,
)

AnyTrial = FrozenTrial | StoredTrial

ERROR = "error"
"""User attribute of a trial that failed by itself: what went wrong."""

OUT_OF_MEMORY = "out_of_memory"
"""User attribute of a trial whose network turned out too large for the device: the reason. It is
infeasible, but unlike what is found to be so beforehand it counts towards the total."""

STOPPED_BECAUSE = "stopped_because"
"""User attribute of a trial that was stopped early: what it was judged by."""

MAX_RETRIES = 3
"""Attempts after the first that may come to nothing in a row; then a trial counts as failed."""


def is_retry(trial: FrozenTrial) -> bool:
    """Return whether `trial` is a further attempt at an earlier one."""
    # Read directly: Optuna's own reader warns at each call that it is experimental.
    return RETRY_OF in trial.system_attrs


def original_number(trial: FrozenTrial) -> int:
    """Return the number of the first attempt, under which checkpoints are kept."""
    return int(trial.system_attrs.get(RETRY_OF, trial.number))


def retries_left(trial: AnyTrial, *, max_retries: int = MAX_RETRIES) -> int:
    """Return how many more attempts there may be after this one, should it come to nothing."""
    attrs = trial.system_attrs
    return max_retries - len(attrs.get(ATTEMPTS, ())) + attrs.get(EXCUSED, 0)


def excuse(trial: Trial) -> None:
    """Let a running attempt not speak against its trial: it is ended on purpose.

    A study that is run in slices ends every attempt so, however many a trial takes.
    """
    _set(trial, EXCUSED, _read(trial).get(EXCUSED, 0) + 1)


def note_progress(trial: Trial, done: int) -> None:
    """Let earlier attempts not speak against a trial that they have brought further.

    Args:
        trial:
            That is running; nothing is written unless it is a retry.
        done:
            How far it is, in whatever grows with progress.
    """
    if not done:
        return
    known = _read(trial)
    attempts = len(known.get(ATTEMPTS, ()))
    if attempts and done > known.get(PROGRESS, 0):
        _set(trial, PROGRESS, done)
        _set(trial, EXCUSED, attempts)


# A private name in both: Optuna has no public way to the id that its storage asks for.
def _read(trial: Trial) -> dict[str, Any]:
    return storage_of(trial.study).get_trial_system_attrs(trial._trial_id)


def _set(trial: Trial, key: str, value: int) -> None:
    storage_of(trial.study).set_trial_system_attr(trial._trial_id, key, value)


def requeue_interrupted(study: Study, *, max_retries: int = MAX_RETRIES) -> int:
    """Queue every interrupted trial again, with its parameters and user attributes.

    Running trials whose process fell silent are failed first. Any number of processes may call
    this at any time, and be killed in it: each attempt is followed by one retry at most, and an
    attempt that is still owed its retry gets it from the next call.

    Args:
        study: A study whose storage comes from `open_storage`.
        max_retries: Most attempts after the first that may come to nothing.

    Returns:
        The number of trials queued by this call.
    """
    # From the start if a server's connection is lost on the way: what was queued is seen then.
    return storage_of(study).patience(_requeue, study, max_retries)


def _requeue(study: Study, max_retries: int) -> int:
    with experimental_accepted():  # heartbeats are
        fail_stale_trials(study)
        if not _owed(study, max_retries):  # as a rule; then nobody is kept from the lock
            return 0
        retry = RetryHeartbeatStaleTrialCallback()  # of those that are owed it
        # One lock around looking and queueing, or two processes would queue the same retry.
        with storage_of(study).lock():
            owed = _owed(study, max_retries)
            for trial in owed:
                # A copy, because Optuna's callback appends to the list inside the trial it is
                # given, which here would be the one in the study's cache.
                retry(study, copy.deepcopy(trial))
    return len(owed)


def _owed(study: Study, max_retries: int) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    retried = _retried(trials)
    return [trial for trial in trials if _is_owed(trial, retried, max_retries)]


def trial_states(trials: Sequence[AnyTrial], *, max_retries: int = MAX_RETRIES) -> dict[int, str]:
    """Say what became of each trial.

    Args:
        trials: All trials of a study, as read at one moment.
        max_retries: As given to `requeue_interrupted`.

    Returns:
        Trial number -> `complete`, `stopped` early, `failed` (by itself or interrupted too
        often), `running`, `queued`, `interrupted` (retried, or about to be) or `infeasible`
        (marked so, in whatever state).
    """
    retried = _retried(trials)
    return {trial.number: _state(trial, retried, max_retries) for trial in trials}


def counts(study: Study, *, max_retries: int = MAX_RETRIES) -> dict[str, int]:
    """Count a study's trials by what became of them; see `count_states`."""
    return count_states(study.get_trials(deepcopy=False), max_retries=max_retries)


def count_states(trials: Sequence[AnyTrial], *, max_retries: int = MAX_RETRIES) -> dict[str, int]:
    """Count trials by what became of them, in the words of `trial_states`.

    complete + stopped + failed + running + queued is the number of original trials that are
    feasible, at any moment; nothing is left to do when running + queued is 0.

    Args:
        trials: All trials of a study, as read at one moment.
        max_retries: As given to `requeue_interrupted`.
    """
    states = ("complete", "stopped", "failed", "running", "queued", "interrupted", "infeasible")
    tally = Counter(trial_states(trials, max_retries=max_retries).values())
    retried = _retried(trials)
    # A retry that is owed counts as queued already. Optuna, too, fails silent trials whenever it
    # is asked for one; without this a worker might see nothing queued, and leave it undone.
    tally["queued"] += sum(_is_owed(trial, retried, max_retries) for trial in trials)
    return {state: tally[state] for state in states}


def too_large(study: Study) -> int:
    """Return how many trials did not fit into the memory of the device."""
    return sum(OUT_OF_MEMORY in trial.user_attrs for trial in study.get_trials(deepcopy=False))


def last_error(study: Study) -> str:
    """Return what went wrong in the last trial that failed by itself."""
    errors = [t.user_attrs[ERROR] for t in study.get_trials() if ERROR in t.user_attrs]
    return errors[-1] if errors else "it was interrupted too often"


def _state(trial: AnyTrial, retried: set[int], max_retries: int) -> str:
    if trial.number in retried or _is_owed(trial, retried, max_retries):
        return "interrupted"
    infeasible = INFEASIBLE in trial.user_attrs or OUT_OF_MEMORY in trial.user_attrs
    return "infeasible" if infeasible else _NAMES[trial.state]


_NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "queued",
}


def _retried(trials: Iterable[AnyTrial]) -> set[int]:
    return {number for trial in trials for number in trial.system_attrs.get(ATTEMPTS, ())}


def _is_owed(trial: AnyTrial, retried: set[int], max_retries: int) -> bool:
    return (
        trial.state is TrialState.FAIL
        and ERROR not in trial.user_attrs
        and INFEASIBLE not in trial.user_attrs  # another attempt would be so, too
        and OUT_OF_MEMORY not in trial.user_attrs
        and trial.number not in retried
        and retries_left(trial, max_retries=max_retries) > 0
    )
