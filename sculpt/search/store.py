"""A study where it is kept: its settings, its Optuna studies, and its artifacts.

The dense base and the candidates are two Optuna studies, `NAME/base` and `NAME`, because
samplers learn from every trial of a study, and the base is not a point of the space. For the same
reason what is confirmed after the search is a third one, `NAME/confirm`.
"""

from dataclasses import dataclass
from pathlib import Path

import optuna

from sculpt.config import Study
from sculpt.search.artifacts.artifact_store import ArtifactStore
from sculpt.search.artifacts.checkpoint_folder import CheckpointFolder
from sculpt.search.artifacts.location import KEY
from sculpt.search.references import refuse_archive
from sculpt.search.storage.study_storage import MemoryStorage, StudyStorage
from sculpt.search.storage.trials import Trials, counts, too_large

STORE_FORMAT = 1
"""Of what sculpt adds to Optuna's tables; raised when older versions could misread it."""

TOTAL = "total_trials"
"""Attribute of a study: how many trials it was last asked for, the base included."""


@dataclass(frozen=True)
class Store:
    """An open study."""

    config: Study
    storage: StudyStorage | MemoryStorage
    """In memory are the trials of an archive."""
    base: optuna.Study
    candidates: optuna.Study
    artifacts: ArtifactStore
    """The files of its trials."""
    confirmation: optuna.Study | None = None
    """None where the study asks for none, and has none."""
    archive: Path | None = None
    """Folder of the archive that was opened; None where the study itself was."""

    @property
    def finished(self) -> int:
        """How many trials have ended and count towards the total."""
        base, candidates = counts(self.base), counts(self.candidates)
        bases = base["complete"]  # failed bases are tried again
        ended = sum(candidates[state] for state in ("complete", "stopped", "failed"))
        return bases + ended + too_large(self.candidates)

    @property
    def total(self) -> int:
        """How many trials the study was last asked for, the base included."""
        return int(self.candidates.user_attrs[TOTAL])

    @property
    def images(self) -> str:
        """Fingerprint of the images and their split that the study was started with."""
        return str(self.candidates.user_attrs["images"])

    def refuse_archive(self, rule: str) -> None:
        """Refuse to do with an archive what only a study allows.

        Raises:
            InputError: it is one; the message begins with the rule.
        """
        if self.archive:
            refuse_archive(self.archive, rule)

    def trials(self, study: optuna.Study) -> Trials:
        """Return the trials of one of its Optuna studies, to work on them.

        Raises:
            TypeError: this is an archive.
        """
        if not isinstance(self.storage, StudyStorage):
            raise TypeError(f"a study must be kept in a storage to be worked on: {self.archive}")
        return Trials(study, self.storage)

    def checkpoints(self, role: str, number: int) -> CheckpointFolder:
        """Return where a trial is written down while it runs.

        Args:
            role: `base`, `candidate` or `confirm`.
            number: Of its first attempt.
        """
        # Not by the study's name: one that was deleted may have left checkpoints behind.
        key = self.candidates.user_attrs[KEY]
        return CheckpointFolder(self.artifacts, f"checkpoints/{key}/{role}/{number}")
