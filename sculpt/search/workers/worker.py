"""A worker: runs trials of one study in this process, one after another."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sculpt.bundle import write_bundle
from sculpt.config import Opponent, Study
from sculpt.data import ImageSet, Splits
from sculpt.errors import DeviceMemoryError, LostDeviceError, SculptError
from sculpt.export.metadata import describe_network
from sculpt.quantities import stored
from sculpt.record import Epoch, SculptedRecord, TrialRecord
from sculpt.run_folder import RunFolder, progress_in
from sculpt.search.confirmation_queue import confirmation_setup, queue_confirmation
from sculpt.search.images import load_scoring_images
from sculpt.search.opponents import opponent_setup, queue_opponents
from sculpt.search.progress import Watcher
from sculpt.search.sampling.early_stopping import EarlyStopper, Stopped
from sculpt.search.sampling.feasibility import check_candidate
from sculpt.search.sampling.space import suggest
from sculpt.search.sampling.unrepeated import first_with
from sculpt.search.workers.devices import answers
from sculpt.search.workers.interruption import Interruption
from sculpt.storage.attributes import (
    ERROR,
    INFEASIBLE,
    OUT_OF_MEMORY,
    STOPPED_BECAUSE,
    THREADS,
)
from sculpt.storage.failures import storage_failure
from sculpt.storage.store import OPPONENT, PARAMETERS, Store
from sculpt.storage.trial_files import discard_networks, keep, network_file
from sculpt.storage.trials import ClaimedTrial, Trials, last_error, original_number
from sculpt.summary import summarize
from sculpt.training.loop import evaluations
from sculpt.training.memory import long_lived, release_memory
from sculpt.trial import run_seed
from sculpt.trial_setup import TrialSetup

MOST_INFEASIBLE = 2000
"""Draws in a row that are infeasible, or others' again; then the space has no more."""

POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 15.0
"""Between looks at trials that other workers are running: at first, and at most."""

SetupOf = Callable[[ClaimedTrial], TrialSetup]
"""Returns the setup of a claimed trial; raises TrialPruned where it cannot be run."""


@dataclass
class Worker:
    """Runs trials of one study in this process, one after another."""

    store: Store
    splits: Splits
    budget: int
    """Budget of the base."""
    watcher: Watcher
    interruption: Interruption
    _scoring: dict[str, ImageSet] = field(default_factory=dict)
    """Images to score on, by the settings of `pruning.data`: a space may name several sets."""

    def run(self, total: int | None) -> None:
        """Run the base, the opponents, and candidates until `total` trials are finished; then
        confirm the best.

        A total of None is that which the study was last asked for, followed when it is raised.

        Raises:
            SculptError: The base failed, every candidate did, an opponent, or a confirmation.
        """
        base = self.store.trials(self.store.base)
        candidates = self.store.trials(self.store.candidates)
        candidates.read()  # now they are in the cache
        with long_lived():
            # Candidates need not wait for a base that another worker trains.
            self._drain(base, _one_more(base), self._base_setup, wait=False)
            _check_base(base)
            self._run_opponents(wait=False)

            def limit() -> int:
                return (self.store.total if total is None else total) - 1

            self._drain(candidates, limit, self._candidate_setup)
            if not candidates.counts()["complete"]:
                raise SculptError(
                    "a candidate must finish, but all failed; the last: "
                    f"{last_error(candidates.study)}"
                )
            self._drain(base, _one_more(base), self._base_setup)
            _check_base(base)
            fault = self._run_opponents()
            if self.store.config.search.confirm and self.store.confirmation:
                confirmation = self.store.trials(self.store.confirmation)
                self.watcher.confirmation_started(queue_confirmation(self.store))
                # No trial is made here but those in the queue.
                self._drain(confirmation, lambda: 0, self._confirmation_setup)
                if missing := queue_confirmation(self.store, dry=True):
                    raise SculptError(
                        f"every confirmation must finish, but {missing} failed: "
                        f"{last_error(confirmation.study)}; the same command tries again"
                    )
            if fault:  # said last, because an opponent that fails each time must not stop the rest
                raise SculptError(fault)

    def _run_opponents(self, *, wait: bool = True) -> str | None:
        """Run the opponents that are left; with `wait`, return what is wrong if one failed."""
        if not self.store.config.opponents or self.store.opponents is None:
            return None
        opponents = self.store.trials(self.store.opponents)
        if not wait:  # or those that failed meanwhile would be tried again at once
            self.watcher.opponents_started(queue_opponents(self.store))
        self._drain(opponents, lambda: 0, self._opponent_setup, wait=wait)
        if wait and (missing := queue_opponents(self.store, dry=True)):
            return (
                f"every opponent must finish, but {missing} failed: "
                f"{last_error(opponents.study)}; the same command tries again"
            )
        return None

    def _drain(
        self, trials: Trials, limit: Callable[[], int], setup_of: SetupOf, *, wait: bool = True
    ) -> None:
        """Run trials until `limit` of them are finished, here or in other processes.

        The limit is asked for before each trial, because it may be raised. With `wait`, the end of
        trials that other workers are running is waited for.
        """
        waiting_since: float | None = None
        infeasible = 0
        while True:
            self.interruption.check()
            trials.requeue()
            claimed = trials.claim(limit())
            if claimed:
                waiting_since = None
                try:
                    ended = trials.run(claimed, partial(self._train, setup_of))
                except KeyboardInterrupt:
                    trials.requeue()
                    raise
                if ended:
                    self._clean_up(trials.study, ended)
                self._check_device(ended)
                infeasible = infeasible + 1 if ended and INFEASIBLE in ended.user_attrs else 0
                if infeasible == MOST_INFEASIBLE:
                    raise SculptError(
                        "the space must have feasible points for as many trials as are asked for, "
                        f"but {infeasible} draws in a row were none, or those of other trials; "
                        "lower search.trials, or widen the space"
                    )
                continue
            tally = trials.counts()
            if not tally["queued"] and not (wait and tally["running"]):
                return
            self.watcher.waiting(tally["running"])
            waiting_since = waiting_since or time.monotonic()
            with self.interruption.at_once():
                time.sleep(pause(time.monotonic() - waiting_since))

    def _base_setup(self, _: ClaimedTrial) -> TrialSetup:
        config = self.store.config
        return TrialSetup("base", config, "base", {}, self.budget, config.search.seeds)

    def _opponent_setup(self, claimed: ClaimedTrial) -> TrialSetup:
        opponent = Opponent.model_validate(claimed.attributes[OPPONENT])
        setup = opponent_setup(self.store.config, opponent, self.splits.spec)
        claimed.write({PARAMETERS: setup.params})
        return setup

    def _candidate_setup(self, claimed: ClaimedTrial) -> TrialSetup:
        """Draw a configuration; raise TrialPruned if it is infeasible, or that of another trial."""
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
        seeds = config.search.seeds
        budget, macs = found.budget, found.macs
        return TrialSetup(trial.number, candidate, "candidate", params, budget, seeds, macs=macs)

    def _confirmation_setup(self, claimed: ClaimedTrial) -> TrialSetup:
        return confirmation_setup(self.store, claimed.attributes, self.splits.spec)

    def _train(self, setup_of: SetupOf, claimed: ClaimedTrial) -> Sequence[float]:
        """Train a trial, and return the values of its objectives."""
        setup = None
        try:
            setup = setup_of(claimed)
            scoring = self._scoring_images(setup.study)
            trainings = 2 if setup.trains_first else 1
            epochs = len(setup.seeds) * trainings * evaluations(setup.study.training)
            self.watcher.trial_started(setup.label, setup.params, epochs)
            with _threads_of(claimed, self.splits.train.device):
                record = self._run_seeds(setup, claimed, scoring)
        except optuna.TrialPruned as stopped:
            if setup:
                self.watcher.trial_finished(setup.label, None, f"stopped: {stopped}")
            raise
        except Exception as error:
            if storage_failure(error) or isinstance(error, UpdateFinishedTrialError):
                raise  # it is not the trial that failed: a later attempt goes on from here
            if not answers(self.splits.train.device):
                raise  # nor here, maybe: another process may try
            problem = f"{type(error).__name__}: {error}"
            too_large = setup and setup.role == "candidate" and isinstance(error, DeviceMemoryError)
            claimed.write({OUT_OF_MEMORY if too_large else ERROR: problem})
            if setup:
                self.watcher.trial_finished(setup.label, None, problem)
            else:
                self.watcher.message(f"trial {claimed.trial.number} cannot be set up: {problem}")
            if too_large:
                raise optuna.TrialPruned(problem) from None
            raise
        finally:
            release_memory(self.splits.train.device)
        self.watcher.trial_finished(setup.label, record.val_error.mean, None)
        return [record.objectives[name] for name in setup.objectives]

    def _run_seeds(
        self, setup: TrialSetup, claimed: ClaimedTrial, scoring: ImageSet
    ) -> TrialRecord:
        """Train all seeds of a setup, keep its record and networks, and return the record; raise
        `Stopped` if the trial is stopped early, with its quantities so far kept."""
        start, outcomes = time.perf_counter(), []
        checkpoints = self.store.checkpoints(claimed.trial.study, claimed.origin)
        settings, stopper = setup.study.search.early_stopping, None
        if settings and setup.role == "candidate" and not setup.read_test:
            metric = setup.study.task.shown
            stopper = EarlyStopper(settings, setup.study.training, claimed.trial, metric)
        try:
            with self.interruption.at_once(), checkpoints.opened() as folder:
                with self.interruption.held_back():
                    claimed.note_progress(progress_in(folder))
                for seed in setup.seeds:
                    run_folder = RunFolder(
                        folder / f"seed-{seed}",
                        self.store.config.search.checkpoint_seconds,
                        on_written=partial(checkpoints.put, folder),
                        on_sculpted=partial(self._seed_sculpted, claimed, stopper),
                        on_epoch=partial(self._epoch_finished, claimed, stopper),
                    )
                    outcomes.append(run_seed(setup, self.splits, scoring, seed, run_folder))
                    stopper = None  # it judges by the first seed
        except Stopped as stopped:
            why = {"stopped_at": stopped.epochs, STOPPED_BECAUSE: str(stopped)}
            cost = {"epochs": stopped.epochs, "seconds": time.perf_counter() - start}
            claimed.write(why | cost)
            raise
        record = summarize(setup, self.splits, [outcome.record for outcome in outcomes])
        with tempfile.TemporaryDirectory() as networks:
            files = []
            for outcome in outcomes:
                seed = outcome.record.seed
                files.append(Path(networks, network_file(seed)))
                description = describe_network(record, seed)
                write_bundle(files[-1], outcome.model, outcome.masks, description)
            keep(self.store, claimed, record, files)
        return record

    def _seed_sculpted(
        self, claimed: ClaimedTrial, stopper: EarlyStopper | None, record: SculptedRecord
    ) -> None:
        if stopper:
            with self.interruption.held_back():
                # A trial that is stopped has its costs, too.
                known = [quantity for quantity in stored() if quantity.before_training]
                claimed.write({q.name: q.read(record) for q in known})
                stopper.on_sculpted(record)

    def _epoch_finished(
        self, claimed: ClaimedTrial, stopper: EarlyStopper | None, epoch: Epoch
    ) -> None:
        self.watcher.epoch_finished(epoch)
        self.interruption.check()
        if claimed.silent:
            raise claimed.silent
        if stopper:
            with self.interruption.held_back():
                stopper.on_epoch(epoch)

    def _check_device(self, ended: FrozenTrial | None) -> None:
        """Raise LostDeviceError if a trial failed, and the device fails all others from now on."""
        device = self.splits.train.device
        if ended and ended.state is TrialState.FAIL and not answers(device):
            raise LostDeviceError(
                f"{device} must compute again after a trial that failed, but does not in this "
                "process; what is finished is kept, and the same command goes on in another one"
            )

    def _clean_up(self, study: optuna.Study, ended: FrozenTrial) -> None:
        """Remove checkpoints of a trial that is not run again, and networks that are not kept."""
        if ended.state is not TrialState.FAIL or ERROR in ended.user_attrs:
            self.store.checkpoints(study, original_number(ended)).remove()
        if ended.state is TrialState.COMPLETE:
            discard_networks(self.store, study, ended)

    def _scoring_images(self, study: Study) -> ImageSet:
        source = str(study.pruning.data)
        if source not in self._scoring:
            self._scoring[source] = load_scoring_images(study, self.splits)
        return self._scoring[source]


@contextmanager
def _threads_of(claimed: ClaimedTrial, device: torch.device) -> Iterator[None]:
    """Compute on the CPU with as many threads as the first attempt at a trial did: a sum that is
    split in another way differs in its last digits, and a network trained on from there in its
    error."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(claimed.remembered(THREADS, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
