"""Notes and files of a study, as Optuna's dashboard keeps them: attributes of the study.

Trials that have ended take no more attributes of their own, so theirs are there, too.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import optuna
import optuna_dashboard
from optuna.artifacts import get_all_artifact_meta
from optuna.storages import BaseStorage

from sculpt.storage.stored_trials import read_trials, write_study_attributes


class StudyAttributes:
    """The attributes of one study, read once.

    It passes for a storage where Optuna's dashboard reads files.

    Args:
        study: The study.
        storage: Where it is kept.
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage) -> None:
        self._study, self._storage = study, storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        found = storage.get_study_system_attrs(self._study_id)
        # This is what is left of a file that was deleted in the dashboard; Optuna chokes on it.
        self._values = {key: value for key, value in found.items() if value != "null"}

    @property
    def page(self) -> str:
        """The path of the study's page in the dashboard."""
        return f"/dashboard/studies/{self._study_id}"

    @property
    def files(self) -> dict[str, str]:
        """The paths of the study's own files in the dashboard, by name."""
        metas = get_all_artifact_meta(self._study, storage=self)  # type: ignore[arg-type]
        return {meta.filename: f"/artifacts/{self._study_id}/{meta.artifact_id}" for meta in metas}

    def write_notes(self, notes: Mapping[int | None, str]) -> None:
        """Write notes, all or none of them, but where a person wrote what is there.

        Args:
            notes: Markdown by the number of a trial; that of the study itself by None.
        """
        ids: dict[int | None, int | None] = {
            trial.number: trial._trial_id for trial in read_trials(self._study, self._storage)
        }
        present: dict[int | None, dict[str, Any]] = defaultdict(dict)
        for key, value in self._values.items():
            present[_owner(key)][key] = value
        written: dict[str, Any] = {}
        for number, text in notes.items():
            trial_id = ids[number] if number is not None else None
            note = _Note(self._study_id, trial_id, present[trial_id])
            found, wanted = optuna_dashboard.get_note(note), signed(text)
            if found != wanted and (not found.strip() or is_ours(found)):
                optuna_dashboard.save_note(note, wanted)
                written |= note.written
        write_study_attributes(self._storage, self._study_id, written)
        self._values |= written

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes read; the name is Optuna's."""
        return self._values


class _Note:
    """What Optuna's dashboard reads of a `Trial` whose note it reads or saves, and of its storage.

    A real trial cannot be had of one that has ended without telling the sampler that another one
    begins. A real storage would be asked for all attributes of the study for each note: a million
    of them for a thousand trials.
    """

    def __init__(self, study_id: int, trial_id: int | None, values: dict[str, Any]) -> None:
        self.study = SimpleNamespace(_study_id=study_id)
        self.storage, self._trial_id = self, trial_id
        self._values, self.written = values, dict[str, Any]()

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._values

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.written[key] = value


def _owner(key: str) -> int | None:
    """Return the trial that an attribute of the dashboard's is about; None is the study."""
    owner = key.removeprefix("dashboard:").partition(":")[0]
    return int(owner) if owner.isdecimal() else None


def signed(text: str) -> str:
    """Return a note that `is_ours` knows again; the line that is added to it is not shown."""
    return f"{text}\n\n[//]: # (sculpt {hashlib.sha256(text.encode()).hexdigest()[:16]})"


def is_ours(note: str) -> bool:
    """Recognise a note that `signed` returned and that was not edited since."""
    return note == signed(note.rpartition("\n\n[//]: # ")[0])
