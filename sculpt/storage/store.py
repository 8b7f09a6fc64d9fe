"""An open study: its settings, its Optuna studies, and its artifacts.

The dense base and the candidates are two Optuna studies, `NAME/base` and `NAME`, because
samplers learn from every trial of a study, and the base is not a point of the space. For the same
reason the confirmation after the search is another one, `NAME/confirm`, and so are the opponents,
`NAME/opponents`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import optuna

from sculpt.config import Study
from sculpt.errors import InputError
from sculpt.storage.artifacts import KEY, ArtifactStore, CheckpointFolder
from sculpt.storage.attributes import OUT_OF_MEMORY
from sculpt.storage.study_storage import MemoryStorage, StudyStorage
from sculpt.storage.trials import Trials, count_states

STORE_FORMAT = 1
"""Format of what sculpt adds to Optuna's tables; raised when older versions could misread it."""

TOTAL = "total_trials"
"""Attribute of a study: the total of trials that it was last asked for, the base included."""

PARTS = {
    "base": "/base",
    "candidates": "",
    "confirmation": "/confirm",
    "opponents": "/opponents",
}
"""The Optuna studies of a study: the end of their names by their attribute of `Store`."""

OPPONENT = "opponent"
"""Attribute of an opponent's trial: its entry in the study file."""

PARAMETERS = "parameters"
"""Attribute of an opponent's trial: its parameters, a solved width among them."""

ARCHIVE_FILE = "study.json"
"""The file that an archive is known by."""


@dataclass(frozen=True)
class Store:
    """An open study."""

    config: Study
    storage: StudyStorage | MemoryStorage
    """In memory are the trials of an archive."""
    base: optuna.Study
    candidates: optuna.Study
    artifacts: ArtifactStore
    """Files of its trials."""
    confirmation: optuna.Study | None = None
    """None where the study asks for none, and has none."""
    opponents: optuna.Study | None = None
    """As `confirmation`."""
    archive: Path | None = None
    """Folder of the archive that was opened; None where the study itself was."""

    @property
    def finished(self) -> int:
        """Number of trials that have ended and count towards the total."""
        bases = count_states(self.base.get_trials(deepcopy=False))
        trials = self.candidates.get_trials(deepcopy=False)
        candidates = count_states(trials)
        ended = sum(candidates[state] for state in ("complete", "stopped", "failed"))
        too_large = sum(OUT_OF_MEMORY in trial.user_attrs for trial in trials)
        return bases["complete"] + ended + too_large  # failed bases are tried again

    @property
    def total(self) -> int:
        """Total of trials that the study was last asked for, the base included."""
        return int(self.candidates.user_attrs[TOTAL])

    @property
    def is_current(self) -> bool:
        """Whether the study was last run with these opponents and this confirmation: they may be
        changed while other processes work on it."""
        settings = (
            self.config.model_dump(mode="json"),
            json.loads(self.candidates.user_attrs["config"]),
        )
        mine, last = ((s.get("opponents"), s["search"].get("confirm")) for s in settings)
        return mine == last

    @property
    def images(self) -> str:
        """Fingerprint of the images and their split that the study was started with."""
        return str(self.candidates.user_attrs["images"])

    def refuse_archive(self, rule: str) -> None:
        """Refuse to do with an archive what only a study allows; see `refuse_archive`."""
        if self.archive:
            refuse_archive(self.archive, rule)

    def trials(self, study: optuna.Study) -> Trials:
        """Return the trials of one of its Optuna studies; TypeError if this is an archive."""
        if not isinstance(self.storage, StudyStorage):
            raise TypeError(f"a study must be kept in a storage to be worked on: {self.archive}")
        return Trials(study, self.storage)

    def checkpoints(self, study: optuna.Study, number: int) -> CheckpointFolder:
        """Return the checkpoints of a trial of one of its Optuna studies, by the number of its
        first attempt."""
        role = study.study_name.removeprefix(self.config.study).strip("/") or "candidate"
        # Not by the study's name: one that was deleted may have left checkpoints behind.
        key = self.candidates.user_attrs[KEY]
        return CheckpointFolder(self.artifacts, f"checkpoints/{key}/{role}/{number}")


def is_archive(reference: str | Path, storage: str | None = None) -> bool:
    """Return whether a reference to a study is the folder of an archive, sound or not.

    With a storage given, what can be a name is one, whatever folders lie around; `./NAME` is a
    folder.
    """
    folder = Path(reference)
    if not os.path.isdir(folder):  # pathlib raises an error where a name is too long
        return False
    if str(reference) == folder.name:  # which a study may have for its name
        return storage is None and (folder / ARCHIVE_FILE).exists()
    return not folder.name.endswith((".yaml", ".yml"))


def refuse_archive(folder: str | Path, rule: str) -> NoReturn:
    """Raise an InputError that begins with the rule that an archive breaks."""
    raise InputError(
        f"{rule}, but {folder} is an archive, which holds results and no networks; give the study "
        f"itself, or run it again from its settings (sculpt report {folder} shows them)"
    )
