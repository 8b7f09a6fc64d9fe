"""One attempt at a trial: its seeds one after another, its record, and what is kept of it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from sculpt.bundle import write_bundle
from sculpt.data import ImageSet, Splits
from sculpt.export.metadata import describe_network
from sculpt.job import Job, Outcome
from sculpt.quantities import stored
from sculpt.record import Epoch, SculptedRecord, TrialRecord
from sculpt.run_folder import RunFolder, progress_in
from sculpt.search.artifacts.checkpoint_folder import CheckpointFolder
from sculpt.search.sampling.early_stopping import Referee, Stopped
from sculpt.search.storage.attributes import STOPPED_BECAUSE
from sculpt.search.storage.trials import ClaimedTrial
from sculpt.search.store import Store
from sculpt.search.trial_files import keep, network_file
from sculpt.search.workers.interruption import Interruption
from sculpt.summary import summarize
from sculpt.trial import run_seed

STOPPED_AT = "stopped_at"
"""User attribute of a stopped trial: after how many epochs of its first seed."""


@dataclass
class Attempt:
    """Runs a job as an Optuna trial, in a folder that a later attempt can go on from."""

    store: Store
    splits: Splits
    scoring: ImageSet
    claimed: ClaimedTrial
    checkpoints: CheckpointFolder
    on_epoch: Callable[[Epoch], None]
    interruption: Interruption

    def run(self, job: Job) -> TrialRecord:
        """Train all seeds of a job, keep the outcome, and return its record.

        Raises:
            Stopped: early; what was known by then is kept.
            SculptError: the trial failed.
        """
        start, outcomes = perf_counter(), []
        settings, referee = job.study.search.early_stopping, None
        if settings and job.role == "candidate" and not job.read_test:
            referee = Referee(settings, job.study.training, self.claimed.trial)
        try:
            with self.interruption.at_once(), self.checkpoints.opened() as folder:
                with self.interruption.held_back():
                    self.claimed.note_progress(progress_in(folder))
                for seed in job.seeds:
                    run_folder = self._run_folder(folder, seed, referee)
                    outcomes.append(run_seed(job, self.splits, self.scoring, seed, run_folder))
                    referee = None  # it judges by the first seed
        except Stopped as stopped:
            self.claimed.write(
                {
                    STOPPED_AT: stopped.epochs,
                    STOPPED_BECAUSE: str(stopped),
                    "epochs": stopped.epochs,
                    "seconds": perf_counter() - start,
                }
            )
            raise
        record = summarize(job, self.splits, [outcome.record for outcome in outcomes])
        with tempfile.TemporaryDirectory() as networks:
            files = write_networks(Path(networks), outcomes, record)
            keep(self.store, self.claimed, record, files)
        return record

    def _run_folder(self, folder: Path, seed: int, referee: Referee | None) -> RunFolder:
        """Return where a seed is written down; the referee is told of its progress."""

        def on_sculpted(record: SculptedRecord) -> None:
            if referee:
                with self.interruption.held_back():
                    # A trial that is stopped has its costs, too.
                    known = [quantity for quantity in stored() if quantity.before_training]
                    self.claimed.write({q.name: q.read(record) for q in known})
                    referee.on_sculpted(record)

        def on_epoch(epoch: Epoch) -> None:
            self.on_epoch(epoch)
            if referee:
                with self.interruption.held_back():
                    referee.on_epoch(epoch)

        return RunFolder(
            folder / f"seed-{seed}",
            self.store.config.search.checkpoint_seconds,
            on_written=partial(self.checkpoints.put, folder),
            on_sculpted=on_sculpted,
            on_epoch=on_epoch,
        )


def write_networks(folder: Path, outcomes: list[Outcome], record: TrialRecord) -> list[Path]:
    """Write the network of each seed into a folder, and say which files these are."""
    files = []
    for outcome in outcomes:
        seed = outcome.record.seed
        files.append(folder / network_file(seed))
        write_bundle(files[-1], outcome.model, outcome.masks, describe_network(record, seed))
    return files
