"""The folder in which a running trial is written down, for every worker to go on from."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sculpt.errors import SculptWarning
from sculpt.search.artifacts.artifact_store import ArtifactStore


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one trial, of all its attempts.

    Where artifacts are kept in a folder, this is a folder in it. Elsewhere an attempt works in a
    temporary folder, which begins as a copy and whose files are put back as they are written.

    Two workers may write here at once: one that was frozen for so long that its trial was given
    to another one wakes late. Both compute the same run and each file is replaced as a whole, so
    the worst is that an attempt goes on from an earlier epoch.
    """

    artifacts: ArtifactStore
    name: str
    """Among the artifacts."""

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Give the folder to work in, with what earlier attempts have written."""
        if self.artifacts.folder:
            yield self.artifacts.folder / self.name
            return
        with TemporaryDirectory(prefix="sculpt-") as made:
            folder = Path(made)
            try:
                self.artifacts.fetch_folder(self.name, folder)
            except Exception as error:  # drivers have errors of their own
                _warn(f"cannot be fetched from {self.artifacts.location} ({error})")
            yield folder

    def put(self, folder: Path, file: Path) -> None:
        """Put back a file that was written in the folder that `opened` gave."""
        if self.artifacts.folder:
            return
        name = f"{self.name}/{file.relative_to(folder).as_posix()}"
        try:
            with file.open("rb") as body:
                self.artifacts.write(name, body)
        except Exception as error:
            _warn(f"cannot be kept ({error})")

    def remove(self) -> None:
        """Remove what a later attempt would go on from, once there will be none."""
        if self.artifacts.folder:
            shutil.rmtree(self.artifacts.folder / self.name, ignore_errors=True)
            return
        try:
            self.artifacts.remove_folder(self.name)
        except Exception as error:
            _warn(f"cannot be removed from {self.artifacts.location} ({error})")


def _warn(problem: str) -> None:
    # A trial can be finished without its checkpoints.
    warnings.warn(f"a checkpoint {problem}; the trial goes on", SculptWarning, stacklevel=3)
