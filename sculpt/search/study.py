"""The run of a study: the dense base first, then candidates, up to the total."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from sculpt.config import Study
from sculpt.data import ImageSet, Splits
from sculpt.errors import DeviceMemoryError, NumericsError, SculptError
from sculpt.export.weights import save_network
from sculpt.record import Role, summarize
from sculpt.registry import OBJECTIVES
from sculpt.search.artifacts import keep
from sculpt.search.claims import (
    ERROR,
    OUT_OF_MEMORY,
    counts,
    last_error,
    original_number,
    requeue_interrupted,
    trial_states,
)
from sculpt.search.interruption import Interruption
from sculpt.search.preparation import (
    choose_device,
    describe_data,
    load_data,
    load_scoring_images,
)
from sculpt.search.progress import Watcher
from sculpt.search.samplers import make_sampler
from sculpt.search.space import infeasible_reason, suggest, total_trials
from sculpt.search.storage import INFEASIBLE, StudyFull
from sculpt.search.store import Store, start_store
from sculpt.training.loop import Epoch, evaluations
from sculpt.training.memory import keep_freed_memory, release_memory
from sculpt.training.precision import resolve_precision
from sculpt.trial import Outcome, candidate_budget, resolve_budget, run_seed

POLL_SECONDS = 1.0
"""Between looks at trials that other workers are running."""


def run_study(
    config: Study,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
    run: Callable[["Worker", int], None] | None = None,
) -> Store:
    """Start a study, or go on with it, until its total of trials is finished.

    Everything is checked before anything is written. A trial that fails by itself is recorded
    and counts; one that was interrupted is run again with the same configuration.

    Args:
        config:
            The study.
        device:
            A torch device, or `auto`.
        watcher:
            Is told of the progress.
        run:
            Runs a worker's trials up to a total; by default `Worker.run`, one after another.

    Raises:
        InputError: the study cannot be run as it is.
        SculptError: the base failed, or every candidate did.
    """
    watcher = watcher or Watcher()
    target = choose_device(device)
    resolve_precision(config.training.precision, target)
    if target.type == "cpu":
        keep_freed_memory()
    spec = describe_data(config)
    budget = resolve_budget(config, spec)
    total = total_trials(config, spec)
    splits = load_data(config).to(target)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    store = start_store(config, splits.fingerprint, total)
    store.candidates.sampler = make_sampler(
        config, len(store.candidates.get_trials(deepcopy=False))
    )
    try:
        with Interruption() as interruption:
            (run or Worker.run)(Worker(store, splits, budget, watcher, interruption), total)
    finally:
        watcher.run_finished()
    return store


@dataclass
class Worker:
    """Runs trials of one study in this process, one after another."""

    store: Store
    splits: Splits
    budget: int
    """Of the base, and of every candidate unless the budget is a share of its own size."""
    watcher: Watcher
    interruption: Interruption
    _number: int | None = None
    """Of the trial that was begun last."""
    _scoring: dict[str, ImageSet] = field(default_factory=dict)
    """Images to score on, by the settings of `pruning.data`: a space may name several sets."""

    def run(self, total: int) -> None:
        """Run the base and then candidates, until `total` trials are finished.

        Raises:
            SculptError: the base failed, or every candidate did.
        """
        self.watcher.run_started(total, self.store.finished)
        self.train_base()
        self.search(total)

    def train_base(self) -> None:
        """Run the base until it is finished.

        Raises:
            SculptError: the base failed.
        """
        base = self.store.base
        # A base that failed is tried again by the next run: nothing can be ranked without it.
        self.drain(base, 1 + counts(base)["failed"], self.run_base)
        if not counts(base)["complete"]:
            raise SculptError(f"the dense base must finish, but failed: {last_error(base)}")

    def search(self, total: int) -> None:
        """Run candidates until `total` trials are finished, the base included.

        Raises:
            SculptError: every candidate failed.
        """
        candidates = self.store.candidates
        self.drain(candidates, total - 1, self.run_candidate)
        if not counts(candidates)["complete"]:
            raise SculptError(
                f"a candidate must finish, but all failed; the last: {last_error(candidates)}"
            )

    def drain(
        self,
        study: optuna.Study,
        limit: int,
        objective: Callable[[optuna.Trial], list[float]],
    ) -> None:
        """Run trials until `limit` of them are finished, here or in other processes."""
        storage = self.store.storage
        storage.limits[storage.get_study_id_from_name(study.study_name)] = limit
        while True:
            self.interruption.check()
            requeue_interrupted(study)
            try:
                # optimize, because ask and tell send no heartbeat.
                study.optimize(objective, n_trials=1, catch=(Exception,))
            except StudyFull:
                tally = counts(study)
                if not tally["running"] and not tally["queued"]:
                    return
                self.watcher.waiting(tally["running"])
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                requeue_interrupted(study)
                raise
            except (AssertionError, ValueError):
                # What Optuna raises when this worker was frozen past its grace, so that its
                # trial was given to another one. This result is dropped; the retry's counts.
                states = trial_states(study.get_trials(deepcopy=False))
                if self._number is None or states.get(self._number) != "interrupted":
                    raise

    def run_base(self, trial: optuna.Trial) -> list[float]:
        """Train the dense base."""
        return self._run(trial, self.store.config, "base", {}, self.budget)

    def run_candidate(self, trial: optuna.Trial) -> list[float]:
        """Sample a configuration, prune it to the budget and train it.

        Raises:
            optuna.TrialPruned: the configuration cannot hold the budget.
        """
        config = self.store.config
        # Two workers that draw at the same moment must not draw the same configuration.
        with self.store.storage.lock():
            params = suggest(trial, config.space)
        candidate = config.with_parameters(params)
        budget = candidate_budget(config, candidate, self.splits.spec)
        if reason := infeasible_reason(candidate, self.splits.spec, budget):
            trial.set_user_attr(INFEASIBLE, reason)
            raise optuna.TrialPruned(reason)
        return self._run(trial, candidate, "candidate", params, budget)

    def _run(
        self, trial: optuna.Trial, study: Study, role: Role, params: dict[str, Any], budget: int
    ) -> list[float]:
        self._number = trial.number
        # Under the number of its first attempt: what was interrupted goes on from there.
        attempt = trial.study.get_trials(deepcopy=False)[trial.number]
        folder = self.store.checkpoints(role) / str(original_number(attempt))
        label = "base" if role == "base" else trial.number
        source = str(study.pruning.data)
        if source not in self._scoring:
            self._scoring[source] = load_scoring_images(study, self.splits)
        first, count = study.search.seed, study.search.replicates
        self.watcher.trial_started(label, params, count * evaluations(study.training))
        try:
            with self.interruption.at_once():
                outcomes = [
                    run_seed(
                        study,
                        self.splits,
                        role=role,
                        budget=budget,
                        seed=seed,
                        scoring=self._scoring[source],
                        on_epoch=self._epoch_finished,
                        folder=folder / f"seed-{seed}",
                    )
                    for seed in range(first, first + count)
                ]
            record = summarize(
                study,
                self.splits,
                [outcome.record for outcome in outcomes],
                role=role,
                params=params,
                budget=budget,
            )
            objectives = _objectives(record)
            record = {"trial": label, "objectives": objectives} | record
            with tempfile.TemporaryDirectory() as networks:
                files = write_networks(Path(networks), outcomes, record)
                keep(self.store, trial, record, files)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            too_large = isinstance(error, DeviceMemoryError) and role == "candidate"
            trial.set_user_attr(OUT_OF_MEMORY if too_large else ERROR, problem)
            self.watcher.trial_finished(label, None, problem)
            shutil.rmtree(folder, ignore_errors=True)
            if too_large:
                raise optuna.TrialPruned(problem) from None
            raise
        finally:
            release_memory(self.splits.train.device)
        shutil.rmtree(folder, ignore_errors=True)
        self.watcher.trial_finished(label, record["val_error"]["mean"], None)
        return [objectives[name] for name in study.search.objectives]

    def _epoch_finished(self, epoch: Epoch) -> None:
        self.watcher.epoch_finished(epoch)
        self.interruption.check()


def write_networks(folder: Path, outcomes: list[Outcome], record: dict[str, Any]) -> list[Path]:
    """Write the network of each seed into a folder, and say which files these are."""
    origin = {key: record[key] for key in ("study", "role", "params", "counting", "config")}
    files = []
    for outcome in outcomes:
        seed = outcome.record["seed"]
        files.append(folder / f"network-seed-{seed}.safetensors")
        save_network(files[-1], outcome.model, outcome.masks, origin | {"seed": seed})
    return files


def _objectives(record: dict[str, Any]) -> dict[str, float]:
    values = {name: float(OBJECTIVES.get(name).read(record)) for name in OBJECTIVES.names()}
    # Optuna would fail such a trial without a word, and it would be taken for interrupted.
    if not all(map(math.isfinite, values.values())):
        raise NumericsError(f"objectives must be finite numbers, but are {values}")
    return values
