"""The progress of workers elsewhere, read from a study's storage."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial

from sculpt.search.progress import Watcher
from sculpt.search.storage.attributes import INFEASIBLE, PROBLEMS
from sculpt.search.storage.trials import trial_states
from sculpt.search.store import Store


class Observer:
    """Looks into a study's storage, and tells a watcher what has changed since the last look."""

    def __init__(self, store: Store, watcher: Watcher):
        self._store = store
        self._watcher = watcher
        self._rows: dict[Any, int] = {}  # trials that are running, each in a row of its own
        self._known: set[Any] = set()  # trials that ended
        for study in self._studies():
            for key, _, state in self._trials(study):
                if state not in ("running", "queued"):
                    self._known.add(key)

    def look(self) -> None:
        """Tell what has changed."""
        for study in self._studies():
            for key, trial, state in self._trials(study):
                if state == "running" and key not in self._rows:
                    self._rows[key] = self._free_row()
                    self._watcher.from_worker(self._rows[key])
                    self._watcher.trial_elsewhere(key[1], trial.params)
                elif state not in ("running", "queued") and key not in self._known:
                    self._known.add(key)
                    self._tell_end(key, trial, state)

    def _tell_end(self, key: tuple[str, int | str], trial: FrozenTrial, state: str) -> None:
        seen = key in self._rows
        row = self._rows.pop(key, None) or self._free_row()
        self._watcher.from_worker(row)
        if state == "interrupted":
            if seen:
                self._watcher.worker_lost(f"a worker of {key[1]} was lost or stopped")
            return
        if trial.user_attrs.get(INFEASIBLE):  # it takes no part in the total
            return
        if not seen:  # it was so short that it was never seen running
            self._watcher.trial_elsewhere(key[1], trial.params)
        problem = next(filter(None, map(trial.user_attrs.get, PROBLEMS)), None)
        error = trial.user_attrs.get("val_error_mean") if state == "complete" else None
        self._watcher.trial_finished(key[1], error, problem or (state if error is None else None))

    def _studies(self) -> list[optuna.Study]:
        found = (self._store.base, self._store.candidates, self._store.confirmation)
        return [study for study in found if study is not None]

    def _trials(self, study: optuna.Study) -> list[tuple[tuple[str, int | str], FrozenTrial, str]]:
        """Return of each trial a key (its study, and what it is called), itself and its state."""
        trials = study.get_trials(deepcopy=False)
        states = trial_states(trials)
        rows = []
        for trial in trials:
            label: int | str = trial.number
            if study is self._store.base:
                label = "base" if trial.number == 0 else f"base {trial.number}"
            elif study is self._store.confirmation:
                label = f"confirm {trial.number}"
            rows.append(((study.study_name, label), trial, states[trial.number]))
        return rows

    def _free_row(self) -> int:
        used = set(self._rows.values())
        return next(row for row in range(1, len(used) + 2) if row not in used)
