"""A study's trials as a table, and a trial's whole record."""

from pathlib import Path
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial

from sculpt.config import Sparsity, Study
from sculpt.errors import InputError
from sculpt.search.artifacts import read_record
from sculpt.search.claims import (
    ERROR,
    OUT_OF_MEMORY,
    STOPPED_BECAUSE,
    counts,
    trial_states,
)
from sculpt.search.storage import INFEASIBLE
from sculpt.search.store import TOTAL, Store, open_store

PROBLEMS = (ERROR, INFEASIBLE, OUT_OF_MEMORY, STOPPED_BECAUSE)
"""Attributes of a trial that say why it has no result."""


class Results:
    """What a study has found so far; every property reads the storage anew.

    Args:
        store:
            The opened study; see `open_results`.
    """

    def __init__(self, store: Store):
        self._store = store

    @property
    def config(self) -> Study:
        """The study's settings."""
        return self._store.config

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, the base first, whatever became of it.

        Columns:
            trial: Optuna's number of a candidate, or "base".
            state: complete, stopped, failed, interrupted (run again as another trial),
                infeasible, running or queued.
            params.KEY: sampled value of each parameter; missing for the base.
            role, budget, counting, dense_parameters, kept_parameters, sparsity (fraction
                removed), dense_macs and kept_macs (per image), dense_memory (bytes).
            score_kept, score_share: sum of the criterion's scores that the mask keeps, and its
                share of all of them.
            val_error_mean, val_error_std (fractions), val_error_n (seeds), val_errors (list),
                test_errors (list, None where the test images were not read).
            OBJECTIVE: the value of each registered objective that was measured, in its own unit.
            STEP_QUANTITY: signal propagation at the steps initial, pruned, repaired:
                orthogonality_score, effective_nodes, effective_parameters, log10_paths,
                jacobian_mean.
            epochs (trained, all seeds), seconds (whole trial), training_seconds (mean of the
                seeds).
            rungs: epoch -> validation error of the first seed, at each look of early stopping.
            stopped_at: epochs of the first seed after which a trial was stopped; 0 = by a proxy,
                before training.
            error: why a stopped, failed or infeasible trial ended.

        What a trial has not come to is missing: a stopped one has its costs and no errors, and
        columns that no trial has are not there.
        """
        rows = []
        for study, is_base in ((self._store.base, True), (self._store.candidates, False)):
            trials = study.get_trials(deepcopy=False)
            states = trial_states(trials)
            for trial in trials:
                label = "base" if is_base else trial.number
                rows.append(_row(label, states[trial.number], trial))
        return pd.DataFrame(rows)

    @property
    def complete(self) -> pd.DataFrame:
        """The finished trials alone, in the columns of `trials`."""
        table = self.trials
        return table[table["state"] == "complete"] if len(table) else table

    @property
    def confirmation(self) -> pd.DataFrame:
        """One row per trial of the confirmation, in the columns of `trials`; empty without one.

        Columns:
            trial: the candidate's number, or "base".
            arm: sculpted or shuffled.
            seeds: how many fresh ones.
        """
        study = self._store.confirmation
        trials = study.get_trials(deepcopy=False) if study else []
        states = trial_states(trials)
        rows = []
        for trial in trials:
            # These three are attributes of the trial, and so columns; it is named by the first.
            rows.append(_row(trial.user_attrs["candidate"], states[trial.number], trial))
        return pd.DataFrame(rows)

    @property
    def confirmed(self) -> tuple[list[int], int] | None:
        """The candidates selected for the confirmation, and on how many seeds; None without."""
        study = self._store.confirmation
        attributes = study.user_attrs if study else {}
        if not attributes.get("selected"):
            return None
        return attributes["selected"], attributes["seeds"]

    def tally(self) -> dict[str, int]:
        """Count trials: total, complete, stopped, failed, running, and those set aside.

        `total` is what the study was last asked for; complete + stopped + failed reaches it.
        """
        base, candidates = counts(self._store.base), counts(self._store.candidates)
        tally = {state: base[state] + candidates[state] for state in base}
        if base["complete"]:
            tally["failed"] = candidates["failed"]  # a base that failed was tried again
        return {"total": self._store.candidates.user_attrs[TOTAL]} | tally

    def record(self, trial: int | str) -> dict[str, Any]:
        """Return everything that is known of a trial.

        Args:
            trial:
                A candidate's number, or "base".

        Returns:
            Its record and `state`; of a trial that is not complete `trial`, `state`, `error` (why
            it was stopped, or failed) and `params`.

        Raises:
            InputError: the study has no such trial.
            StorageError: the trial's record is missing from the artifacts.
        """
        frozen, state = self._find(trial)
        if state != "complete":
            problem = next(filter(None, map(frozen.user_attrs.get, PROBLEMS)), None)
            return {"trial": trial, "state": state, "error": problem, "params": frozen.params}
        return {"state": state} | read_record(self._store, frozen)

    def _find(self, trial: int | str) -> tuple[FrozenTrial, str]:
        """Return a trial and its state; of several attempts at the base, the best."""
        study = self._store.base if trial == "base" else self._store.candidates
        trials = study.get_trials(deepcopy=False)
        states = trial_states(trials)
        for frozen in sorted(trials, key=lambda t: states[t.number] != "complete"):
            if trial in ("base", frozen.number):
                return frozen, states[frozen.number]
        candidates = self._store.candidates.get_trials(deepcopy=False)
        numbers = ", ".join(str(candidate.number) for candidate in candidates)
        raise InputError(f"a trial must be base or one of {numbers or 'none yet'}, but got {trial}")


def open_results(reference: str | Path, storage: str | None = None) -> Results:
    """Open the results of a study that has been started.

    Args:
        reference:
            A study file, or the name of a study.
        storage:
            Where it is kept; by default where the file says, or `runs/NAME.db`.

    Raises:
        StorageError: there is no such study there.
        ConfigError: the study file is no YAML or names no study.
    """
    return Results(open_store(reference, storage))


def _row(label: int | str, state: str, trial: FrozenTrial) -> dict[str, Any]:
    attributes = dict(trial.user_attrs)
    objectives = attributes.pop("objectives", None) or {}
    problems = [attributes.pop(key, None) for key in PROBLEMS]
    return {
        "trial": label,
        "state": state,
        **{f"params.{key}": value for key, value in trial.params.items()},
        "val_error_mean": attributes.pop("val_error_mean", None),
        "val_error_std": attributes.pop("val_error_std", None),
        "val_error_n": attributes.pop("val_error_n", 0),
        "val_errors": attributes.pop("val_errors", []),
        **attributes,
        **objectives,
        "error": next(filter(None, problems), None),
    }


def budgets_of(config: Study, table: pd.DataFrame) -> list[int]:
    """Return the budgets of the candidates in a table; none where each has a share of its own."""
    if isinstance(config.budget, Sparsity) or not len(table):
        return []
    candidates = table[table["role"] == "candidate"]
    rows = candidates if len(candidates) else table
    return sorted({int(budget) for budget in rows["budget"]})


def parameters_of(row: pd.Series) -> dict[str, Any]:
    """Return the sampled parameters of a row of `Results.trials`."""
    return {
        str(key).removeprefix("params."): _plain(value)
        for key, value in row.items()
        if str(key).startswith("params.") and not _missing(value)
    }


def _plain(value: Any) -> Any:
    """Return a value that JSON knows; whole numbers as integers (a gap made them floats)."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
