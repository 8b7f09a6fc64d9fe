"""The trials of one study: claimed by many workers, counted exactly, retried if their worker dies.

A trial that fails by itself carries the user attribute `error`, set before it is told. A failed
trial without it was interrupted (killed, Ctrl-C, node lost) and is owed another attempt, which is
a new trial with the same parameters.

A worker may be frozen for so long that its trial is given to another one. Whatever it then tries
to write of that trial ends in Optuna's `UpdateFinishedTrialError`, at any moment: `Trials.run`
drops its result, and the worker goes on.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from optuna import Study, Trial, TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from sculpt.storage.attributes import (
    ATTEMPTS,
    ERROR,
    EXCUSED,
    INFEASIBLE,
    OUT_OF_MEMORY,
    PROCESS,
    PROGRESS,
    RETRY_OF,
)
from sculpt.storage.failures import (
    LostClaimError,
    LostLockError,
    LostStorageError,
    in_one_line,
    storage_failure,
)
from sculpt.storage.process_identity import this_process
from sculpt.storage.stored_trials import write_attributes
from sculpt.storage.study_storage import StudyStorage

MAX_RETRIES = 3
"""Attempts after the first that may come to nothing in a row; then a trial counts as failed."""


class ClaimedTrial:
    """A running trial that belongs to this worker, unless it falls silent for too long.

    Whatever is written raises `UpdateFinishedTrialError` if the trial was taken away.

    Attributes:
        trial: Optuna's trial.
        storage: Storage that it is kept in, in the row `trial_id`.
        origin: Number of its first attempt, under which checkpoints are kept.
        attributes: User attributes that it was queued with, or has from earlier attempts.
        silent: Failure of the thread that writes its signs of life: others would take it for dead,
            and run it, too.
    """

    def __init__(self, trial: Trial, storage: StudyStorage, trial_id: int) -> None:
        self.trial, self.storage, self.trial_id = trial, storage, trial_id
        frozen = storage.get_trial(trial_id)
        self.origin = original_number(frozen)
        self.attributes: Mapping[str, Any] = frozen.user_attrs
        self._system = frozen.system_attrs
        self.silent: LostStorageError | None = None

    def write(self, attributes: Mapping[str, Any]) -> None:
        """Set user attributes, all or none of them."""
        self.storage.patience(write_attributes, self.storage, self.trial_id, attributes)

    def excuse(self) -> None:
        """Let this attempt not use up the retries, because it is ended on purpose: a study that is
        run in slices ends every attempt so, however many a trial takes."""
        known = self.storage.get_trial_system_attrs(self.trial_id)
        self.storage.set_trial_system_attr(self.trial_id, EXCUSED, known.get(EXCUSED, 0) + 1)

    def note_progress(self, done: int) -> None:
        """Let earlier attempts not use up the retries, if they have brought the trial further: if
        `done`, any measure of progress, is more than the last attempt found."""
        attempts = len(self._system.get(ATTEMPTS, ()))
        if attempts and done > self._system.get(PROGRESS, 0):
            self.storage.set_trial_system_attr(self.trial_id, PROGRESS, done)
            self.storage.set_trial_system_attr(self.trial_id, EXCUSED, attempts)

    def remembered(self, key: str, value: Any) -> Any:
        """Return the system attribute of earlier attempts; the first one writes this value."""
        if key not in self._system:
            self.storage.set_trial_system_attr(self.trial_id, key, value)
        return self._system.get(key, value)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Write signs of life in this context, from a thread of their own."""
        ended = threading.Event()

        def beat() -> None:
            try:
                while True:
                    with suppress(UpdateFinishedTrialError):
                        self.storage.record_heartbeat(self.trial_id)
                    if ended.wait(self.storage.heartbeat_seconds):
                        return
            except Exception as error:
                self.silent = LostStorageError(
                    "a running trial must give signs of life, but its thread failed: "
                    f"{type(error).__name__}: {in_one_line(error)}"
                )

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Trials:
    """The trials of one Optuna study, kept in a storage from `open_storage`, for a worker."""

    def __init__(self, study: Study, storage: StudyStorage) -> None:
        self.study, self.storage = study, storage
        self._study_id = storage.get_study_id_from_name(study.study_name)

    def read(self) -> list[FrozenTrial]:
        """Return all trials as they are now; they are the cache's, and must not be changed."""
        return self.study.get_trials(deepcopy=False)

    def counts(self) -> dict[str, int]:
        """Count the trials by state; see `count_states`."""
        return count_states(self.read())

    def claim(self, limit: int) -> ClaimedTrial | None:
        """Claim a queued trial, or a new one if there are fewer than `limit`; else return None.

        Any number of workers may ask at once: retries and infeasible trials not counted, there are
        never more than `limit` trials but those that were queued.
        """
        # Repeated from the count on if a server's answer is lost: a trial that was made is seen.
        return self.storage.patience(self._claim, limit)

    def _claim(self, limit: int) -> ClaimedTrial | None:
        with self.storage.lock():
            trials = self.read()
            queued = any(trial.state is TrialState.WAITING for trial in trials)
            full = count_originals(trials) >= limit
            if full and not queued:
                return None
            try:
                with self.storage.only_queued() if full else nullcontext():
                    trial = self.study.ask()
            except UpdateFinishedTrialError as error:
                raise LostClaimError("a trial was claimed and ended by another process") from error
            found = self.storage.get_trial_id_from_study_id_trial_number(
                self._study_id, trial.number
            )
            with suppress(UpdateFinishedTrialError):  # taken away already: it is found out later
                self.storage.set_trial_system_attr(found, PROCESS, this_process())
        return ClaimedTrial(trial, self.storage, found)

    def run(
        self, claimed: ClaimedTrial, objective: Callable[[ClaimedTrial], Sequence[float]]
    ) -> FrozenTrial | None:
        """Run a claimed trial, and write down how it ends.

        `objective` returns its values, or raises: `TrialPruned` stops it early, anything else fails
        it. A failure of its own is its attribute `error` by then. Returns the trial as it ended;
        None if it was taken away from this worker: its result is dropped, another attempt's counts.

        Raises:
            KeyboardInterrupt: `objective` raised it; the trial counts as interrupted.
            LostStorageError: The storage failed for longer than patience lasts. The trial counts
                as interrupted, now or when it is found to be silent.
        """
        state, values = TrialState.FAIL, None
        error: BaseException | None = None
        try:
            with claimed.alive():
                values = objective(claimed)
            state = TrialState.COMPLETE
        except TrialPruned:
            state = TrialState.PRUNED
        except (Exception, KeyboardInterrupt) as raised:
            error = raised
        if claimed.silent and not error:
            state, values, error = TrialState.FAIL, None, claimed.silent
        if isinstance(error, UpdateFinishedTrialError):
            return None
        interrupt = error if isinstance(error, KeyboardInterrupt) else None
        if interrupt:
            with suppress(Exception):  # else it counts as an attempt that came to nothing
                claimed.excuse()
        lost = None if interrupt else storage_failure(error)
        try:
            ended = self._tell(claimed, state, values)
        except UpdateFinishedTrialError:
            ended = None
        except Exception as raised:
            raise (interrupt or lost or storage_failure(raised) or raised) from None
        if interrupt:
            raise interrupt
        if lost and not isinstance(lost, LostLockError):
            raise lost
        return ended

    def _tell(
        self, claimed: ClaimedTrial, state: TrialState, values: Sequence[float] | None
    ) -> FrozenTrial:
        try:
            return self.study.tell(claimed.trial, values, state)
        except ValueError:
            # Optuna reports a trial that has ended like a wrong call: ask for its own error.
            found = self.storage.get_trial(claimed.trial_id)
            self.storage.check_trial_is_updatable(claimed.trial_id, found.state)
            raise

    def withdraw(self, number: int, reason: str) -> None:
        """End a queued trial without running it; it counts as failed. The caller holds the lock."""
        found = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self.storage.set_trial_user_attr(found, ERROR, reason)
        self.storage.set_trial_state_values(found, TrialState.FAIL)

    def requeue(self) -> int:
        """Queue every interrupted trial again, with its parameters and user attributes, and those
        whose worker fell silent; return how many.

        Any number of processes may call this at any time, and be killed in it: each attempt is
        followed by one retry at most, and one that is still owed gets it from the next call.
        """
        # Repeated from the start if a server's connection is lost: trials already queued are seen.
        return self.storage.patience(self._requeue)

    def _requeue(self) -> int:
        trials = self.read()
        if self.storage.fail_silent(self._study_id, trials):
            trials = self.read()
        if not owed(trials):  # as a rule; then no other worker waits for the lock
            return 0
        # One lock around looking and queueing, or two processes would queue the same retry.
        with self.storage.lock():
            trials = owed(self.read())
            for trial in trials:
                attempts = [*trial.system_attrs.get(ATTEMPTS, ()), trial.number]
                known = {k: v for k, v in trial.system_attrs.items() if k != PROCESS}
                retry = create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs=trial.user_attrs,
                    system_attrs=known | {RETRY_OF: attempts[0], ATTEMPTS: attempts},
                )
                self.study.add_trial(retry)
        return len(trials)


def original_number(trial: FrozenTrial) -> int:
    """Return the number of the first attempt at a trial; its own unless it is a retry."""
    return int(trial.system_attrs.get(RETRY_OF, trial.number))


def retries_left(trial: FrozenTrial) -> int:
    """Return how many more attempts there may be after this one, should it come to nothing."""
    known = trial.system_attrs
    return MAX_RETRIES - len(known.get(ATTEMPTS, ())) + known.get(EXCUSED, 0)


def count_originals(trials: Iterable[FrozenTrial]) -> int:
    """Count trials, without retries and those that an attempt has shown to be infeasible."""
    feasible: dict[int, bool] = {}
    for trial in trials:
        origin = original_number(trial)
        feasible[origin] = feasible.get(origin, True) and INFEASIBLE not in trial.user_attrs
    return sum(feasible.values())


def owed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the interrupted trials that have not been followed by another attempt."""
    retried = _retried(trials)
    return [trial for trial in trials if _is_owed(trial, retried)]


_NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "queued",
}


def trial_states(trials: Sequence[FrozenTrial]) -> dict[int, str]:
    """Return the state of each trial by number, of all trials of a study as read at one moment.

    It is `complete`, `stopped` early, `failed` (by itself or interrupted too often), `running`,
    `queued`, `interrupted` (retried, or about to be) or `infeasible` (marked so, in any state).
    """
    retried = _retried(trials)

    def state(trial: FrozenTrial) -> str:
        if trial.number in retried or _is_owed(trial, retried):
            return "interrupted"
        infeasible = {INFEASIBLE, OUT_OF_MEMORY} & trial.user_attrs.keys()
        return "infeasible" if infeasible else _NAMES[trial.state]

    return {trial.number: state(trial) for trial in trials}


def count_states(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Count all trials of a study, as read at one moment, by state, in the words of `trial_states`.

    complete + stopped + failed + running + queued is the number of original trials that are
    feasible, at any moment; nothing is left to do when running + queued is 0.
    """
    tally = Counter(trial_states(trials).values())
    # A retry that is owed counts as queued already, or a worker might see nothing left to do.
    tally["queued"] += len(owed(trials))
    return {state: tally[state] for state in (*_NAMES.values(), "interrupted", "infeasible")}


def last_error(study: Study) -> str:
    """Return the error of the last trial that failed by itself."""
    trials = study.get_trials(deepcopy=False)
    errors = [trial.user_attrs[ERROR] for trial in trials if ERROR in trial.user_attrs]
    return errors[-1] if errors else "it was interrupted too often"


def _retried(trials: Iterable[FrozenTrial]) -> set[int]:
    return {number for trial in trials for number in trial.system_attrs.get(ATTEMPTS, ())}


def _is_owed(trial: FrozenTrial, retried: set[int]) -> bool:
    return (
        trial.state is TrialState.FAIL
        # Another attempt would end like this one.
        and not {ERROR, INFEASIBLE, OUT_OF_MEMORY} & trial.user_attrs.keys()
        and trial.number not in retried
        and retries_left(trial) > 0
    )
