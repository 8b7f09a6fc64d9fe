"""Notes and files of a study, as Optuna's dashboard keeps them: attributes of the study.

Trials that have ended take no more attributes of their own, so theirs are there, too.
"""

import hashlib
from types import SimpleNamespace
from typing import Any

import optuna
import optuna_dashboard
from optuna.artifacts import get_all_artifact_meta
from optuna.storages import BaseStorage


class StudyAttributes:
    """The attributes of one study, read once.

    It passes for a storage where Optuna's dashboard reads and saves notes. Given a real one, that
    reads all attributes of the study for each note: a million of them for a thousand trials.

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

    def write_note(self, text: str, trial: int | None = None) -> None:
        """Write the note of the study, or of a trial, unless a person wrote what is there.

        Args:
            text: Markdown.
            trial: The trial's number; none for the study itself.
        """
        trial_id = None
        if trial is not None:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial)
        # What the dashboard reads of a `Trial`. A real one cannot be had of a trial that has
        # ended without telling the sampler that another one begins.
        place = SimpleNamespace(
            storage=self, study=SimpleNamespace(_study_id=self._study_id), _trial_id=trial_id
        )
        present, wanted = optuna_dashboard.get_note(place), signed(text)
        if present != wanted and (not present.strip() or is_ours(present)):
            optuna_dashboard.save_note(place, wanted)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes read; the name is Optuna's."""
        return self._values

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an attribute; the name is Optuna's."""
        self._storage.set_study_system_attr(study_id, key, value)
        self._values[key] = value


def signed(text: str) -> str:
    """Return a note that `is_ours` knows again; the line that is added to it is not shown."""
    return f"{text}\n\n[//]: # (sculpt {hashlib.sha256(text.encode()).hexdigest()[:16]})"


def is_ours(note: str) -> bool:
    """Recognise a note that `signed` returned and that was not edited since."""
    return note == signed(note.rpartition("\n\n[//]: # ")[0])
