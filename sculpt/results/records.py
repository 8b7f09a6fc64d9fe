"""Results of a study: its trials as a table, their records and their networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.trial import FrozenTrial

from sculpt.config import Opponent, Study
from sculpt.documents import Document
from sculpt.errors import InputError, StorageError
from sculpt.record import TrialRecord
from sculpt.results.columns import as_table, described
from sculpt.results.kept_values import OF_CONFIRMATION, OF_OPPONENT, check_kept
from sculpt.results.rows import by_error
from sculpt.storage.attributes import PROBLEMS
from sculpt.storage.opening import open_store
from sculpt.storage.store import OPPONENT, PARAMETERS, TOTAL, Store
from sculpt.storage.stored_trials import read_trials
from sculpt.storage.trial_files import (
    keep_later,
    read_later,
    read_network,
    read_record,
    with_later,
)
from sculpt.storage.trials import count_states, trial_states
from sculpt.typed_json import to_json
from sculpt.units import Metric

if TYPE_CHECKING:  # pandas takes half a second to import, and counting trials needs no table
    import pandas as pd

T = TypeVar("T")


class Results:
    """Results of a study so far; every property reads the storage anew.

    Args:
        store: The opened study; see `open_results`.
    """

    def __init__(self, store: Store):
        self._store = store
        self._kept: dict[str, Any] | None = None

    def snapshot(self) -> Results:
        """Return the results as they are when they are first asked for, read only once."""
        if self._kept is not None:
            return self
        results = Results(self._store)
        results._kept = {}
        return results

    @property
    def store(self) -> Store:
        """The opened study."""
        return self._store

    @property
    def config(self) -> Study:
        """The study's settings."""
        return self._store.config

    @property
    def metric(self) -> Metric:
        """What its errors are: the classification error, or what its task names."""
        return self.config.task.shown

    @property
    def images(self) -> str:
        """Fingerprint of the images and their split: studies of the same one can be compared."""
        return self._store.images

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, the base first, whatever became of it.

        The columns, their units and meanings stand in `columns`. What a trial has not come to is
        missing: a stopped one has its costs and no errors, and columns that no trial has are not
        there.
        """
        return self._once("table", lambda: as_table(self.rows)).copy(deep=False)

    @property
    def rows(self) -> list[Document]:
        """Each trial as a dictionary with the keys of `trials`, but `params` as one of its own.

        What a trial has not come to is None, or not there.
        """

        studies = (self._store.base, self._store.candidates)
        return self._once("rows", lambda: [row for s in studies for row in self._read_rows(s)])

    @property
    def finished(self) -> list[Document]:
        """The finished trials among `rows`."""
        return [row for row in self.rows if row["state"] == "complete"]

    @property
    def columns(self) -> pd.DataFrame:
        """The columns of `trials`: one row for each, with its name, unit and meaning."""
        import pandas as pd

        rows = described(map(str, self.trials), self.metric)
        return pd.DataFrame(rows, columns=["name", "unit", "meaning"])

    @property
    def complete(self) -> pd.DataFrame:
        """The finished trials alone, in the columns of `trials`."""
        table = self.trials
        return table[table["state"] == "complete"] if len(table) else table

    @property
    def confirmation(self) -> pd.DataFrame:
        """One row per trial of the confirmation, in the columns of `trials`; empty without one.

        Columns:
            trial: the candidate's number, the label of a dense opponent, or "base".
            arm: sculpted, shuffled, erk or dense.
            seeds: how many fresh ones.
        """
        return as_table(self.confirming)

    @property
    def confirming(self) -> list[Document]:
        """The trials of the confirmation as `rows`."""
        return self._read_rows(self._store.confirmation) if self._store.confirmation else []

    @property
    def opponents(self) -> pd.DataFrame:
        """One row per trial of an opponent that the study lists, in the columns of `trials`.

        Columns:
            trial: its label, for example "dense blocks 2".
            arm: its kind.
        """
        return as_table(self.opponent_rows)

    @property
    def opponent_rows(self) -> list[Document]:
        """The trials of opponents as `rows`; those that the study no longer lists left out."""
        study = self._store.opponents
        return self._once("opponents", lambda: self._read_rows(study)) if study else []

    @property
    def confirmed(self) -> tuple[list[int], int] | None:
        """The candidates selected for the confirmation, and on how many seeds; None without."""
        study = self._store.confirmation
        attributes = study.user_attrs if study else {}
        selected: Any = attributes.get("selected")
        seeds: Any = attributes.get("seeds")
        if not selected:
            return None
        if not (isinstance(selected, list) and all(isinstance(x, int) for x in [*selected, seeds])):
            raise StorageError(
                f"the confirmation of {self.config.study} must have numbers of candidates and of "
                f"seeds, but has {selected!r:.60} and {seeds!r:.60}; restore it from a copy"
            )
        return selected, seeds

    @property
    def confirmed_dense(self) -> list[str]:
        """The labels of the dense opponents selected for the confirmation."""
        study = self._store.confirmation
        return list(map(str, study.user_attrs.get("dense", []))) if study else []

    def tally(self) -> dict[str, int]:
        """Count trials: total, complete, stopped, failed, running, and those set aside.

        `total` is what the study was last asked for; complete + stopped + failed reaches it.
        """
        base = count_states(self._read(self._store.base))
        candidates = count_states(self._read(self._store.candidates))
        tally = {state: base[state] + candidates[state] for state in base}
        if base["complete"]:
            tally["failed"] = candidates["failed"]  # a base that failed was tried again
        return {"total": self._store.candidates.user_attrs[TOTAL]} | tally

    def record(self, trial: int | str) -> Document:
        """Return everything that is known of a trial.

        Args:
            trial: A candidate's number, "base", the label of an opponent, or "best": the candidate
                with the lowest mean validation error, at equal error the one with the fewest kept
                MACs.

        Returns:
            Its record and `state`; of a trial that is not complete `trial`, `state`, `error` (why
            it was stopped, or failed) and `params`, with `rungs` where early stopping looked at it.

        Raises:
            InputError: the study has no such trial.
            StorageError: the trial's record is missing from the artifacts.
        """
        study, frozen, state = self._find(trial)
        if state != "complete":
            problem = next(filter(None, map(frozen.user_attrs.get, PROBLEMS)), None)
            found = {"trial": trial, "state": state, "error": problem, "params": frozen.params}
            rungs = frozen.user_attrs.get("rungs")
            return found | ({"rungs": rungs, **self.metric.in_document} if rungs else {})
        return {"state": state} | to_json(self._read_record(study, frozen))

    def typed_record(self, trial: int | str) -> TrialRecord:
        """Return the record of a finished trial, see `record`.

        Raises:
            InputError: the study has no such trial, or it is not finished.
            StorageError: the trial's record is missing from the artifacts, or damaged.
        """
        return self._read_record(*self._find_complete(trial, "a record"))

    def _read_record(self, study: optuna.Study, frozen: FrozenTrial) -> TrialRecord:
        record = read_record(self._store, frozen)
        later = read_later(study).get(frozen.number, {})
        return replace(record, **with_later({"objectives": record.objectives}, later))

    def copy_network(self, trial: int | str, path: Path, seed: int | None = None) -> None:
        """Copy a trained network of a finished trial to a file; `sculpt.load` reads it.

        Args:
            trial: A candidate's number, "base", the label of an opponent, or "best".
            path: Of the file.
            seed: One of the trial's; by default the one with the lowest validation error.

        Raises:
            InputError: there is no such trial, it is not finished, or has no such seed; or this is
                an archive, which has no networks.
            StorageError: the network is missing from the artifacts.
        """
        self._store.refuse_archive("a network must come from the study that trained it")
        _, frozen = self._find_complete(trial, "a network")
        runs = {run.seed: run.val_error for run in read_record(self._store, frozen).runs}
        chosen = min(runs, key=lambda key: runs[key]) if seed is None else seed
        if chosen not in runs:
            known = ", ".join(map(str, runs))
            raise InputError(f"the seed of trial {trial} must be one of {known}, but got {chosen}")
        read_network(self._store, frozen, chosen, path)

    def keep_latency(self, trial: int | str, latency: float, latency_by: str) -> None:
        """Write into a finished trial's record how long its network takes for one image.

        Args:
            trial: A candidate's number, "base", or the label of an opponent.
            latency: Seconds, for one image.
            latency_by: How it was measured, see `sculpt.export.latency.describe_latency`.

        Raises:
            InputError: there is no such trial, or it is not finished; or this is an archive.
        """
        self._store.refuse_archive("a latency must be written into a study")
        study, frozen = self._find_complete(trial, "a latency")
        keep_later(study, frozen.number, {"latency": latency, "latency_by": latency_by})

    def _find(self, trial: int | str) -> tuple[optuna.Study, FrozenTrial, str]:
        """Return a trial, its study and its state; of several attempts at the base or an opponent,
        the one that finished, else the last."""
        if trial == "best":
            trial = self._best()
        store = self._store
        studies = [store.base, store.candidates, *([store.opponents] if store.opponents else [])]
        for study in studies:
            trials = self._read(study)
            states = trial_states(trials)
            for found in sorted(trials, key=lambda t: (states[t.number] != "complete", -t.number)):
                if self._label(study, found) == trial:
                    return study, found, states[found.number]
        numbers = _ranges([candidate.number for candidate in self._read(store.candidates)])
        labels = ", ".join(opponent.label for opponent in self.config.opponents)
        raise InputError(
            f"a trial must be base, best or one of {numbers or 'none yet'}"
            + (f", or an opponent ({labels})" if labels else "")
            + f", but got {trial}"
        )

    def _label(self, study: optuna.Study, trial: FrozenTrial) -> int | str | None:
        """Return the label of a trial; None for an opponent that the study does not list."""
        if study is self._store.base:
            return "base"
        if study is self._store.opponents:
            entry = trial.user_attrs.get(OPPONENT)
            listed = (o for o in self.config.opponents if o.model_dump() == entry)
            return next((opponent.label for opponent in listed), None)
        return trial.number

    def _find_complete(self, trial: int | str, what: str) -> tuple[optuna.Study, FrozenTrial]:
        study, frozen, state = self._find(trial)
        if state != "complete":
            raise InputError(f"a trial must be complete to have {what}, but {trial} is {state}")
        return study, frozen

    def _best(self) -> int:
        candidates = [row for row in self.finished if row["role"] == "candidate"]
        if not candidates:
            raise InputError("the best trial must be a finished candidate, but there is none yet")
        best = min(candidates, key=by_error)
        return int(best["trial"])

    def _read(self, study: optuna.Study) -> list[FrozenTrial]:
        return self._once(study.study_name, lambda: read_trials(study, self._store.storage))

    def _once(self, key: str, read: Callable[[], T]) -> T:
        """Read a part of the storage; in a snapshot only the first time."""
        if self._kept is None:
            return read()
        if key not in self._kept:
            self._kept[key] = read()
        return self._kept[key]

    def _read_rows(self, study: optuna.Study) -> list[Document]:
        trials, later = self._read(study), read_later(study)
        states, store = trial_states(trials), self._store
        also = OF_CONFIRMATION if study is store.confirmation else {}
        also = OF_OPPONENT if study is store.opponents else also
        rows = []
        for trial in trials:
            label = self._label(study, trial)
            found, whose = dict(trial.user_attrs), f"trial {trial.number} of {study.study_name}"
            complete = states[trial.number] == "complete"
            check_kept(found, whose, complete=complete, also=also)
            if trial.number in later:
                check_kept(later[trial.number], whose)
                found = with_later(found, later[trial.number])
            if label is None:
                continue
            params, role = dict(trial.params), "base" if study is store.base else "candidate"
            if study is store.opponents:
                entry = Opponent.model_validate(found.pop(OPPONENT))
                params = found.pop(PARAMETERS, None) or entry.options
                role, found = "opponent", {"arm": entry.name} | found
            elif study is store.confirmation:
                # A trial is named by the one that it trains again.
                label = found["candidate"]
                if isinstance(label, str):
                    role = "base" if label == "base" else "opponent"
            objectives = found.pop("objectives", None) or {}
            problems = [found.pop(key, None) for key in PROBLEMS]
            row: Document = {
                "study": self.config.study,
                "trial": label,
                "state": states[trial.number],
                "role": role,
                "params": params,
                "val_error_mean": None,
                "val_error_std": None,
                "val_error_n": 0,
                "val_errors": [],
            }
            rows.append(row | found | objectives | {"error": next(filter(None, problems), None)})
        return rows


def open_results(reference: str | Path, storage: str | None = None) -> Results:
    """Open the results of a study that has been started.

    Args:
        reference:
            A study file, the name of a study, the file of one (.db), or the folder of an archive
            (`sculpt archive`).
        storage: Where it is kept; by default where the file says, or `runs/NAME.db`.

    Raises:
        StorageError: there is no such study there, or the archive is damaged.
        ConfigError: the study file is no YAML or names no study.
    """
    return Results(open_store(reference, storage))


def _ranges(numbers: list[int]) -> str:
    """Return whole numbers as a short text: 0 to 4, 6."""
    runs = groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    shown: list[str] = []
    for run in ([str(number) for _, number in run] for _, run in runs):
        shown += run if len(run) < 3 else [f"{run[0]} to {run[-1]}"]
    return ", ".join(shown)
