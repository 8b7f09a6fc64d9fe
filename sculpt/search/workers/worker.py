"""A worker: runs trials of one study in this process, one after another."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from sculpt.config import Study
from sculpt.data import ImageSet, Splits
from sculpt.errors import DeviceMemoryError, SculptError
from sculpt.job import Job
from sculpt.record import Epoch, TrialRecord
from sculpt.search.artifacts.checkpoint_folder import CheckpointFolder
from sculpt.search.confirmation import confirmation_job, queue_confirmation
from sculpt.search.networks import discard_networks
from sculpt.search.preparation import load_scoring_images
from sculpt.search.progress import Watcher
from sculpt.search.sampling.early_stopping import Stopped
from sculpt.search.sampling.feasibility import check_candidate
from sculpt.search.sampling.space import suggest
from sculpt.search.sampling.unrepeated import first_with
from sculpt.search.storage.claims import (
    ERROR,
    OUT_OF_MEMORY,
    counts,
    excuse,
    last_error,
    original_number,
    requeue_interrupted,
    trial_states,
)
from sculpt.search.storage.failures import LostLockError, LostStorageError, storage_failure
from sculpt.search.storage.study_storage import INFEASIBLE, StudyFull, storage_of
from sculpt.search.store import Store
from sculpt.search.workers.attempt import Attempt
from sculpt.search.workers.interruption import Interruption
from sculpt.training.loop import evaluations
from sculpt.training.memory import long_lived, release_memory

POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 15.0
"""Between looks at trials that other workers are running: at first, and at most."""


@dataclass
class Worker:
    """Runs trials of one study in this process, one after another."""

    store: Store
    splits: Splits
    budget: int
    """Of the base."""
    watcher: Watcher
    interruption: Interruption
    _number: int | None = None
    """Of the trial that was begun last."""
    _scoring: dict[str, ImageSet] = field(default_factory=dict)
    """Images to score on, by the settings of `pruning.data`: a space may name several sets."""

    def run(self, total: int | None) -> None:
        """Run the base and then candidates, until `total` trials are finished; then confirm.

        Args:
            total:
                The base included; None is what the study was last asked for, and it is followed
                when it is raised meanwhile.

        Raises:
            SculptError: the base failed, or every candidate did.
        """
        self.store.candidates.get_trials(deepcopy=False)  # now they are in the cache
        with long_lived():
            self.train_base(wait=False)  # candidates need not wait for one that others train
            self.search(total)
            self.train_base()
            self.confirm()

    def train_base(self, *, wait: bool = True) -> None:
        """Run the base until it is finished, or, unless `wait`, until another worker runs it.

        Raises:
            SculptError: the base failed.
        """
        base = self.store.base
        # A base that failed is tried again by the next run: nothing can be ranked without it.
        limit = 1 + counts(base)["failed"]
        self.drain(base, lambda: limit, self.run_base, wait=wait)
        tally = counts(base)
        if not (tally["complete"] or tally["running"] or tally["queued"]):
            raise SculptError(f"the dense base must finish, but failed: {last_error(base)}")

    def search(self, total: int | None) -> None:
        """Run candidates until `total` trials (see `run`) are finished, the base included.

        Raises:
            SculptError: every candidate failed.
        """
        candidates = self.store.candidates
        limit = partial(self._candidates_of, total)
        self.drain(candidates, limit, self.run_candidate)
        if not counts(candidates)["complete"]:
            raise SculptError(
                f"a candidate must finish, but all failed; the last: {last_error(candidates)}"
            )

    def confirm(self) -> None:
        """Train the best candidates and the base anew, if the study asks for it.

        Raises:
            SculptError: one of them failed.
        """
        confirmation = self.store.confirmation
        if confirmation is None:
            return
        queued = queue_confirmation(self.store)
        self.watcher.confirmation_started(queued)
        # No trial is made here but those in the queue.
        self.drain(confirmation, lambda: 0, self.run_confirmation)
        if missing := queue_confirmation(self.store, dry=True):
            raise SculptError(
                f"every confirmation must finish, but {missing} failed: "
                f"{last_error(confirmation)}; the same command tries again"
            )

    def drain(
        self,
        study: optuna.Study,
        limit: Callable[[], int],
        objective: Callable[[optuna.Trial], list[float]],
        *,
        wait: bool = True,
    ) -> None:
        """Run trials until `limit` of them are finished, here or in other processes.

        Args:
            study:
                Whose trials.
            limit:
                Says how many; it is asked before each trial, because it may be raised.
            objective:
                Runs one.
            wait:
                Whether to wait for trials that other workers are running.

        Raises:
            LostStorageError: the storage failed for longer than patience lasts. The trial that was
                running then counts as interrupted, and is run again by whoever goes on.
        """
        storage = storage_of(study)
        study_id = storage.get_study_id_from_name(study.study_name)
        lost: LostStorageError | None = None

        def watched(trial: optuna.Trial) -> list[float]:
            nonlocal lost
            self._number = trial.number
            try:
                return objective(trial)
            except Exception as error:
                lost = storage_failure(error)
                raise
            except KeyboardInterrupt:
                with suppress(Exception):  # it then counts as an attempt that came to nothing
                    excuse(trial)
                raise

        waiting_since: float | None = None
        while True:
            self.interruption.check()
            requeue_interrupted(study)
            storage.limits[study_id] = limit()
            lost = None
            try:
                # optimize, because ask and tell send no heartbeat.
                study.optimize(watched, n_trials=1, catch=(Exception,), callbacks=[self._ended])
                if lost and not isinstance(lost, LostLockError):  # Optuna caught it
                    raise lost
                waiting_since = None
            except StudyFull:
                tally = counts(study)
                if not tally["queued"] and not (wait and tally["running"]):
                    return
                self.watcher.waiting(tally["running"])
                waiting_since = waiting_since or time.monotonic()
                with self.interruption.at_once():
                    time.sleep(pause(time.monotonic() - waiting_since))
            except KeyboardInterrupt:
                requeue_interrupted(study)
                raise
            except Exception as error:
                if lost := storage_failure(error):
                    raise lost from None
                # What Optuna raises when this worker was frozen past its grace, so that its
                # trial was given to another one. This result is dropped; the retry's counts.
                if self._number is None or not isinstance(error, AssertionError | ValueError):
                    raise
                states = trial_states(study.get_trials(deepcopy=False))
                if states.get(self._number) != "interrupted":
                    raise

    def run_base(self, trial: optuna.Trial) -> list[float]:
        """Train the dense base."""
        config = self.store.config
        record = self._run(
            trial, Job("base", config, "base", {}, self.budget, search_seeds(config))
        )
        return [record.objectives[name] for name in config.search.objectives]

    def run_candidate(self, trial: optuna.Trial) -> list[float]:
        """Sample a configuration, prune it to the budget and train it.

        Raises:
            optuna.TrialPruned: the configuration cannot be run, or is stopped early.
        """
        config = self.store.config
        # Two workers that draw at the same moment must not draw the same configuration.
        with storage_of(trial.study).lock():
            params = suggest(trial, config.space)
            first = first_with(params, trial)
            # If it was not locked all the while: this trial is interrupted, and its retry, which
            # has these parameters, is compared with all that others drew meanwhile.
            storage_of(trial.study).check_lock()
        candidate = config.with_parameters(params)
        found = check_candidate(config, candidate, self.splits.spec)
        known = trial.constraints
        for name, violation in found.violations.items():
            if name not in known:  # a retry has them already
                trial.set_constraint(name, violation)
        reason = found.reason if first is None else f"it is the configuration of trial {first}"
        if reason:
            trial.set_user_attr(INFEASIBLE, reason)
            raise optuna.TrialPruned(reason)
        seeds = search_seeds(config)
        job = Job(trial.number, candidate, "candidate", params, found.budget, seeds)
        record = self._run(trial, job)
        return [record.objectives[name] for name in config.search.objectives]

    def run_confirmation(self, trial: optuna.Trial) -> list[float]:
        """Train a selected candidate, its control or the base on fresh seeds; read the test set."""
        record = self._run(trial, confirmation_job(self.store, trial, self.splits.spec))
        return [record.objectives["test_error"]]

    def _run(self, trial: optuna.Trial, job: Job) -> TrialRecord:
        # A private name: as it was claimed; to read it anew takes as long as to write it.
        claimed = trial._cached_frozen_trial
        attempt = Attempt(
            self.store,
            self.splits,
            self._scoring_images(job.study),
            trial,
            self._checkpoints(trial.study, claimed),
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
            if storage_failure(error):  # not its own: a later attempt goes on from here
                raise
            problem = f"{type(error).__name__}: {error}"
            too_large = isinstance(error, DeviceMemoryError) and job.role == "candidate"
            trial.set_user_attr(OUT_OF_MEMORY if too_large else ERROR, problem)
            self.watcher.trial_finished(job.label, None, problem)
            if too_large:
                raise optuna.TrialPruned(problem) from None
            raise
        finally:
            release_memory(self.splits.train.device)
        self.watcher.trial_finished(job.label, record.val_error.mean, None)
        return record

    def _candidates_of(self, total: int | None) -> int:
        return (self.store.total if total is None else total) - 1

    def _checkpoints(self, study: optuna.Study, trial: FrozenTrial) -> CheckpointFolder:
        kind = study.study_name.removeprefix(self.store.config.study).strip("/")
        # Under the number of its first attempt: what was interrupted goes on from there.
        return self.store.checkpoints(kind or "candidate", original_number(trial))

    def _ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Remove what is needed no more: checkpoints of a trial that is not run again, networks.

        Optuna calls this once the trial's end is written down, and not if it was given to another
        worker meanwhile, whose checkpoints these are then.
        """
        if trial.state is not TrialState.FAIL or ERROR in trial.user_attrs:
            self._checkpoints(study, trial).remove()
        if trial.state is TrialState.COMPLETE:
            discard_networks(self.store, study, trial)

    def _scoring_images(self, study: Study) -> ImageSet:
        source = str(study.pruning.data)
        if source not in self._scoring:
            self._scoring[source] = load_scoring_images(study, self.splits)
        return self._scoring[source]

    def _epoch_finished(self, epoch: Epoch) -> None:
        self.watcher.epoch_finished(epoch)
        self.interruption.check()


def pause(waited: float) -> float:
    """Return the seconds until a worker that has waited so long looks again: about a tenth of it.

    However many wait for the last trials of a study, the storage must have time for those.
    """
    seconds = min(max(POLL_SECONDS, waited / 10), LONGEST_POLL_SECONDS)
    return seconds * random.uniform(0.5, 1.5)


def search_seeds(config: Study) -> range:
    """Return the seeds of every trial of the search."""
    return range(config.search.seed, config.search.seed + config.search.replicates)
