"""One attempt at a trial: its seeds one after another, its record, and what is kept of it."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from sculpt.bundle import write_bundle
from sculpt.data import ImageSet, Splits
from sculpt.errors import NumericsError
from sculpt.export.description import describe_network
from sculpt.record import summarize
from sculpt.registry import OBJECTIVES
from sculpt.sculpted import progress_in
from sculpt.search.artifacts.checkpoint_folder import CheckpointFolder
from sculpt.search.plan import TrialPlan
from sculpt.search.sampling.early_stopping import Referee, Stopped
from sculpt.search.storage.attributes import STOPPED_BECAUSE
from sculpt.search.storage.trials import ClaimedTrial
from sculpt.search.store import Store
from sculpt.search.trial_files import keep, network_file
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


@dataclass
class Attempt:
    """Runs a plan as an Optuna trial, in a folder that a later attempt can go on from."""

    store: Store
    splits: Splits
    scoring: ImageSet
    claimed: ClaimedTrial
    checkpoints: CheckpointFolder
    on_epoch: Callable[[Epoch], None]
    interruption: Interruption

    def run(self, plan: TrialPlan) -> dict[str, Any]:
        """Train all seeds of a plan, keep the outcome, and return its record.

        Raises:
            Stopped: early; what was known by then is kept.
            SculptError: the trial failed.
        """
        start, trial = perf_counter(), self.claimed.trial
        referee = None
        if plan.study.search.early_stopping and plan.role == "candidate" and not plan.read_test:
            settings = plan.study.search.early_stopping
            referee = Referee(settings, plan.study.training, trial)
        try:
            with self.interruption.at_once(), self.checkpoints.opened() as folder:
                with self.interruption.held_back():
                    self.claimed.note_progress(progress_in(folder))
                outcomes = [
                    self._run_seed(plan, seed, folder, referee if seed == plan.seeds[0] else None)
                    for seed in plan.seeds
                ]
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
        record = summarize(
            plan.study,
            self.splits,
            [outcome.record for outcome in outcomes],
            role=plan.role,
            params=plan.params,
            budget=plan.budget,
        )
        objectives = read_objectives(record, plan.study.search.objectives)
        record = {"trial": plan.label, "objectives": objectives} | plan.facts | record
        with tempfile.TemporaryDirectory() as networks:
            files = write_networks(Path(networks), outcomes, record)
            keep(self.store, self.claimed, record, files)
        return record

    def _run_seed(
        self, plan: TrialPlan, seed: int, folder: Path, referee: Referee | None
    ) -> Outcome:
        def on_sculpted(record: dict[str, Any]) -> None:
            if referee:
                with self.interruption.held_back():
                    # A trial that is stopped has its costs, too.
                    self.claimed.write({key: record.get(key) for key in KNOWN_BEFORE_TRAINING})
                    referee.on_sculpted(record)

        def on_epoch(epoch: Epoch) -> None:
            self.on_epoch(epoch)
            if referee:
                with self.interruption.held_back():
                    referee.on_epoch(epoch)

        return run_seed(
            plan.study,
            self.splits,
            role=plan.role,
            budget=plan.budget,
            seed=seed,
            scoring=self.scoring,
            on_sculpted=on_sculpted,
            on_epoch=on_epoch,
            read_test=plan.read_test,
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
