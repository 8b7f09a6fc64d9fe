"""One attempt at a trial: its seeds one after another, its record, and what is kept of it."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import optuna

from sculpt.bundle import write_bundle
from sculpt.config import Study
from sculpt.data import ImageSet, Splits
from sculpt.errors import NumericsError
from sculpt.export.description import describe_network
from sculpt.record import Role, summarize
from sculpt.registry import OBJECTIVES
from sculpt.sculpted import progress_in
from sculpt.search.artifacts.checkpoint_folder import CheckpointFolder
from sculpt.search.artifacts.records import keep, network_file
from sculpt.search.sampling.early_stopping import Referee, Stopped
from sculpt.search.storage.claims import STOPPED_BECAUSE, note_progress
from sculpt.search.store import Store
from sculpt.search.workers.interruption import Interruption
from sculpt.training.loop import Epoch
from sculpt.trial import Outcome, run_seed

STOPPED_AT = "stopped_at"
"""User attribute of a stopped trial: after how many epochs of its first seed."""

KNOWN_BEFORE_TRAINING = (
    "dense_parameters",
    "kept_parameters",
    "dense_macs",
    "kept_macs",
    "dense_memory",
    "score_kept",
    "score_share",
)
"""What is kept of a candidate of early stopping as soon as its first seed is pruned."""


@dataclass(frozen=True)
class Job:
    """What one trial is to train."""

    label: int | str
    """What the trial is called where people read: a number, or `base`, `confirm 3`, ..."""
    study: Study
    """With the sampled parameters in place."""
    role: Role
    params: dict[str, Any]
    budget: int
    seeds: Sequence[int]
    read_test: bool = False
    """Read the test images, once, when the training of a seed has ended."""
    facts: dict[str, Any] = field(default_factory=dict)
    """More to be recorded."""


@dataclass
class Attempt:
    """Runs a job as an Optuna trial, in a folder that a later attempt can go on from."""

    store: Store
    splits: Splits
    scoring: ImageSet
    trial: optuna.Trial
    checkpoints: CheckpointFolder
    on_epoch: Callable[[Epoch], None]
    interruption: Interruption

    def run(self, job: Job) -> dict[str, Any]:
        """Train all seeds of a job, keep the outcome, and return its record.

        Raises:
            Stopped: early; what was known by then is kept.
            SculptError: the job failed.
        """
        start = perf_counter()
        referee = None
        if job.study.search.early_stopping and job.role == "candidate" and not job.read_test:
            settings = job.study.search.early_stopping
            referee = Referee(settings, job.study.training, self.trial)
        try:
            with self.interruption.at_once(), self.checkpoints.opened() as folder:
                with self.interruption.held_back():
                    note_progress(self.trial, progress_in(folder))
                outcomes = [
                    self._run_seed(job, seed, folder, referee if seed == job.seeds[0] else None)
                    for seed in job.seeds
                ]
        except Stopped as stopped:
            self.trial.set_user_attr(STOPPED_AT, stopped.epochs)
            self.trial.set_user_attr(STOPPED_BECAUSE, str(stopped))
            self.trial.set_user_attr("epochs", stopped.epochs)
            self.trial.set_user_attr("seconds", perf_counter() - start)
            raise
        record = summarize(
            job.study,
            self.splits,
            [outcome.record for outcome in outcomes],
            role=job.role,
            params=job.params,
            budget=job.budget,
        )
        objectives = read_objectives(record, job.study.search.objectives)
        record = {"trial": job.label, "objectives": objectives} | job.facts | record
        with tempfile.TemporaryDirectory() as networks:
            files = write_networks(Path(networks), outcomes, record)
            keep(self.store, self.trial, record, files)
        return record

    def _run_seed(self, job: Job, seed: int, folder: Path, referee: Referee | None) -> Outcome:
        def on_sculpted(record: dict[str, Any]) -> None:
            if referee:
                with self.interruption.held_back():
                    # A trial that is stopped has its costs, too.
                    for key in KNOWN_BEFORE_TRAINING:
                        self.trial.set_user_attr(key, record.get(key))
                    referee.on_sculpted(record)

        def on_epoch(epoch: Epoch) -> None:
            self.on_epoch(epoch)
            if referee:
                with self.interruption.held_back():
                    referee.on_epoch(epoch)

        return run_seed(
            job.study,
            self.splits,
            role=job.role,
            budget=job.budget,
            seed=seed,
            scoring=self.scoring,
            on_sculpted=on_sculpted,
            on_epoch=on_epoch,
            read_test=job.read_test,
            folder=folder / f"seed-{seed}",
            on_written=partial(self.checkpoints.put, folder),
        )


def write_networks(folder: Path, outcomes: list[Outcome], record: dict[str, Any]) -> list[Path]:
    """Write the network of each seed into a folder, and say which files these are."""
    files = []
    for outcome in outcomes:
        seed = outcome.record["seed"]
        files.append(folder / network_file(seed))
        write_bundle(files[-1], outcome.model, outcome.masks, describe_network(record, seed))
    return files


def read_objectives(record: dict[str, Any], chosen: Sequence[str]) -> dict[str, float]:
    """Return the value of each registered objective that was measured, by name.

    Raises:
        NumericsError: one of the chosen ones has no value, or one is not finite.
    """
    read = {name: OBJECTIVES.get(name).read(record) for name in OBJECTIVES.names()}
    values = {name: float(value) for name, value in read.items() if value is not None}
    # Optuna would fail such a trial without a word, and it would be taken for interrupted.
    missing = [name for name in chosen if name not in values]
    if missing or not all(map(math.isfinite, values.values())):
        raise NumericsError(
            f"objectives must be finite numbers, but are {values}"
            + (f", without {', '.join(missing)}" if missing else "")
        )
    return values
