"""A worker: runs trials of one study in this process, one after another."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sculpt.config import Study
from sculpt.data import ImageSet, Splits
from sculpt.errors import DeviceMemoryError, SculptError
from sculpt.job import Job
from sculpt.record import Epoch
from sculpt.search.artifacts.checkpoint_folder import CheckpointFolder
from sculpt.search.confirmation import confirmation_job, queue_confirmation
from sculpt.search.images import load_scoring_images
from sculpt.search.kept_networks import discard_networks
from sculpt.search.progress import Watcher
from sculpt.search.sampling.early_stopping import Stopped
from sculpt.search.sampling.feasibility import check_candidate
from sculpt.search.sampling.space import suggest
from sculpt.search.sampling.unrepeated import first_with
from sculpt.search.storage.attributes import ERROR, INFEASIBLE, OUT_OF_MEMORY
from sculpt.search.storage.failures import storage_failure
from sculpt.search.storage.trials import ClaimedTrial, Trials, last_error, original_number
from sculpt.search.store import Store
from sculpt.search.workers.attempt import Attempt
from sculpt.search.workers.interruption import Interruption
from sculpt.training.loop import evaluations
from sculpt.training.memory import long_lived, release_memory

POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 15.0
"""Between looks at trials that other workers are running: at first, and at most."""

JobOf = Callable[[ClaimedTrial], Job]
"""Says what a claimed trial is to train; raises TrialPruned where it cannot be run."""


@dataclass
class Worker:
    """Runs trials of one study in this process, one after another."""

    store: Store
    splits: Splits
    budget: int
    """Of the base."""
    watcher: Watcher
    interruption: Interruption
    _scoring: dict[str, ImageSet] = field(default_factory=dict)
    """Images to score on, by the settings of `pruning.data`: a space may name several sets."""

    def run(self, total: int | None) -> None:
        """Run the base and candidates until `total` trials are finished; then confirm the best.

        Args:
            total: The base included; None is what the study was last asked for, and it is followed
                when it is raised meanwhile.

        Raises:
            SculptError: the base failed, every candidate did, or a confirmation.
        """
        base = self.store.trials(self.store.base)
        candidates = self.store.trials(self.store.candidates)
        candidates.read()  # now they are in the cache
        with long_lived():
            # Candidates need not wait for a base that another worker trains.
            self._drain(base, _one_more(base), self._base_job, wait=False)
            _check_base(base)
            self._drain(candidates, partial(self._limit, total), self._candidate_job)
            if not candidates.counts()["complete"]:
                raise SculptError(
                    "a candidate must finish, but all failed; the last: "
                    f"{last_error(candidates.study)}"
                )
            self._drain(base, _one_more(base), self._base_job)
            _check_base(base)
            if self.store.confirmation is not None:
                confirmation = self.store.trials(self.store.confirmation)
                self.watcher.confirmation_started(queue_confirmation(self.store))
                # No trial is made here but those in the queue.
                self._drain(confirmation, lambda: 0, self._confirmation_job)
                if missing := queue_confirmation(self.store, dry=True):
                    raise SculptError(
                        f"every confirmation must finish, but {missing} failed: "
                        f"{last_error(confirmation.study)}; the same command tries again"
                    )

    def _drain(
        self, trials: Trials, limit: Callable[[], int], job_of: JobOf, *, wait: bool = True
    ) -> None:
        """Run trials until `limit` of them are finished, here or in other processes.

        Args:
            trials: Of one of the study's Optuna studies.
            limit: Says how many; it is asked before each trial, because it may be raised.
            job_of: Says what a trial is to train.
            wait: Whether to wait for trials that other workers are running.

        Raises:
            LostStorageError: the storage failed for longer than patience lasts.
        """
        waiting_since: float | None = None
        while True:
            self.interruption.check()
            trials.requeue()
            claimed = trials.claim(limit())
            if claimed:
                waiting_since = None
                try:
                    ended = trials.run(claimed, partial(self._train, job_of))
                except KeyboardInterrupt:
                    trials.requeue()
                    raise
                if ended:
                    self._clean_up(trials.study, ended)
                continue
            tally = trials.counts()
            if not tally["queued"] and not (wait and tally["running"]):
                return
            self.watcher.waiting(tally["running"])
            waiting_since = waiting_since or time.monotonic()
            with self.interruption.at_once():
                time.sleep(pause(time.monotonic() - waiting_since))

    def _base_job(self, claimed: ClaimedTrial) -> Job:
        config = self.store.config
        seeds = search_seeds(config)
        return Job("base", config, "base", {}, self.budget, seeds)

    def _candidate_job(self, claimed: ClaimedTrial) -> Job:
        """Draw a configuration, and refuse one that cannot be run.

        Raises:
            optuna.TrialPruned: it is infeasible, or the configuration of another trial.
        """
        config, trial = self.store.config, claimed.trial
        # Two workers that draw at the same moment must not draw the same configuration.
        with claimed.storage.lock():
            params = suggest(trial, config.space)
            first = first_with(params, trial)
            # If it was not locked all the while: this trial is interrupted, and its retry, which
            # has these parameters, is compared with all that others drew meanwhile.
            claimed.storage.check_lock()
        candidate = config.with_parameters(params)
        found = check_candidate(config, candidate, self.splits.spec)
        known = trial.constraints
        for name, violation in found.violations.items():
            if name not in known:  # a retry has them already
                trial.set_constraint(name, violation)
        reason = found.reason if first is None else f"it is the configuration of trial {first}"
        if reason:
            claimed.write({INFEASIBLE: reason})
            raise optuna.TrialPruned(reason)
        seeds = search_seeds(config)
        return Job(trial.number, candidate, "candidate", params, found.budget, seeds)

    def _confirmation_job(self, claimed: ClaimedTrial) -> Job:
        return confirmation_job(self.store, claimed.attributes, self.splits.spec)

    def _train(self, job_of: JobOf, claimed: ClaimedTrial) -> Sequence[float]:
        """Train a trial, and return the values of its objectives."""
        job = job_of(claimed)
        attempt = Attempt(
            self.store,
            self.splits,
            self._scoring_images(job.study),
            claimed,
            self._checkpoints(claimed.trial.study, claimed.origin),
            self._epoch_finished,
            self.interruption,
        )
        epochs = len(job.seeds) * evaluations(job.study.training)
        self.watcher.trial_started(job.label, job.params, epochs)
        try:
            record = attempt.run(job)
        except Stopped as stopped:
            self.watcher.trial_finished(job.label, None, f"stopped: {stopped}")
            raise
        except Exception as error:
            if storage_failure(error) or isinstance(error, UpdateFinishedTrialError):
                raise  # it is not the trial that failed: a later attempt goes on from here
            problem = f"{type(error).__name__}: {error}"
            too_large = isinstance(error, DeviceMemoryError) and job.role == "candidate"
            claimed.write({OUT_OF_MEMORY if too_large else ERROR: problem})
            self.watcher.trial_finished(job.label, None, problem)
            if too_large:
                raise optuna.TrialPruned(problem) from None
            raise
        finally:
            release_memory(self.splits.train.device)
        self.watcher.trial_finished(job.label, record.val_error.mean, None)
        return [record.objectives[name] for name in job.objectives]

    def _limit(self, total: int | None) -> int:
        return (self.store.total if total is None else total) - 1

    def _checkpoints(self, study: optuna.Study, origin: int) -> CheckpointFolder:
        """Return where a trial is written down: by its first attempt, from which others go on."""
        kind = study.study_name.removeprefix(self.store.config.study).strip("/")
        return self.store.checkpoints(kind or "candidate", origin)

    def _clean_up(self, study: optuna.Study, ended: FrozenTrial) -> None:
        """Remove checkpoints of a trial that is not run again, and networks that are not kept."""
        if ended.state is not TrialState.FAIL or ERROR in ended.user_attrs:
            self._checkpoints(study, original_number(ended)).remove()
        if ended.state is TrialState.COMPLETE:
            discard_networks(self.store, study, ended)

    def _scoring_images(self, study: Study) -> ImageSet:
        source = str(study.pruning.data)
        if source not in self._scoring:
            self._scoring[source] = load_scoring_images(study, self.splits)
        return self._scoring[source]

    def _epoch_finished(self, epoch: Epoch) -> None:
        self.watcher.epoch_finished(epoch)
        self.interruption.check()


def _one_more(trials: Trials) -> Callable[[], int]:
    """Return a limit that lets a trial be made in the place of those that have failed so far."""
    limit = 1 + trials.counts()["failed"]
    return lambda: limit


def _check_base(base: Trials) -> None:
    tally = base.counts()
    if not (tally["complete"] or tally["running"] or tally["queued"]):
        raise SculptError(f"the dense base must finish, but failed: {last_error(base.study)}")


def pause(waited: float) -> float:
    """Return the seconds until a worker that has waited so long looks again: about a tenth of it.

    However many wait for the last trials of a study, the storage must have time for those.
    """
    seconds = min(max(POLL_SECONDS, waited / 10), LONGEST_POLL_SECONDS)
    return seconds * random.uniform(0.5, 1.5)


def search_seeds(config: Study) -> range:
    """Return the seeds of every trial of the search."""
    return range(config.search.seed, config.search.seed + config.search.replicates)
