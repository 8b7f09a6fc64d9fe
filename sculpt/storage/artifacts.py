"""The files of a study (records, networks, checkpoints), in a folder or anywhere fsspec reaches."""

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NoReturn
from uuid import uuid4

import fsspec
import optuna
from fsspec.implementations.dirfs import DirFileSystem
from optuna.artifacts.exceptions import ArtifactNotFound

from sculpt.config import Study
from sculpt.errors import InputError, SculptWarning, StorageError
from sculpt.files import replacing
from sculpt.storage.failures import LostStorageError, in_one_line

KEY = "artifacts_key"
"""Attribute of a study: its identity among others of its name, and of a file among its artifacts,
so that workers see whether they all keep them in one place."""

_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci")
"""Object stores. They have no folders: to make one would make a bucket of a misspelt name."""


class ArtifactStore:
    """Files by name in one place: Optuna's artifact store, with its names and arguments.

    A file is there whole or not at all, whenever its writer dies.

    Attributes:
        location: The place as it was given.
        folder: The folder, on this machine or on a file system it shares; None for other URLs.

    Raises:
        InputError: The location may hold secrets, or is no single place.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        scheme, separator, rest = self.location.partition("://")
        self._protocol = scheme if separator else "file"
        if separator and "::" in self.location:
            raise InputError(f"artifacts must be one place, not a chain, but got {location!r}")
        if separator and (re.match(r"[^:@]*:.*@", rest) or "?" in rest):
            # The location is stored, and shown: a secret in it would be, too.
            raise InputError(
                "artifacts must be a URL without keys, passwords and options, but got "
                f"{scheme}://...; drivers read them from their own configuration (s3fs: AWS's "
                "files and variables, or fsspec's: "
                "https://filesystem-spec.readthedocs.io/en/latest/features.html)"
            )
        path = rest if separator else self.location
        local = self._protocol in ("file", "local")
        self.folder = Path(path).expanduser().absolute() if local else None

    @cached_property
    def files(self) -> Any:
        """fsspec's file system of the place, connected to when first needed; InputError if its
        driver is not installed, StorageError if it cannot be reached."""
        try:
            if self.folder:
                return DirFileSystem(self.folder.as_posix(), fsspec.filesystem("file"))
            files, root = fsspec.core.url_to_fs(self.location)
            return DirFileSystem(root, files)
        except (ImportError, ValueError) as error:
            extra = "; pip install 'sculpt[s3]'" if self._protocol in ("s3", "s3a") else ""
            raise InputError(
                "artifacts must be a folder, or a URL that an installed driver of fsspec can "
                f"open, but got {self.location} ({in_one_line(error)}{extra})"
            ) from None
        except Exception as error:
            self._unreachable(error)

    def check(self) -> None:
        """Make sure that files can be written, read and removed, or raise a StorageError; leave
        nothing behind."""
        name, text = f"check-{uuid4().hex}", b"Written to see whether files can be."
        made = []
        if self.folder:  # pathlib raises an error where a name is too long
            made = [f for f in (self.folder, *self.folder.parents) if not os.path.exists(f)]
        try:
            self.write(name, BytesIO(text))
            with self.open_reader(name) as reader:
                if reader.read() != text:
                    raise OSError("a file is read otherwise than it was written")
            self.remove(name)
        except LostStorageError as error:
            self._unreachable(error.__cause__ or error)
        except InputError:
            raise
        except Exception as error:
            self._unreachable(error)
        finally:
            for folder in made:
                with suppress(OSError):  # another process has begun to use it
                    folder.rmdir()

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write a file, in the place of one of the same name; folders in its name are made.
        LostStorageError if it cannot be written."""
        try:
            if self.folder is None:
                self._write_remote(artifact_id, content_body)
                return
            with suppress(FileNotFoundError):  # `check`, elsewhere, has just removed the folder
                self._write_local(self.folder / artifact_id, content_body)
                return
            self._write_local(self.folder / artifact_id, content_body)
        except (InputError, StorageError):
            raise
        except Exception as error:  # drivers have errors of their own
            raise LostStorageError(
                f"artifacts must stay writable, but {artifact_id} cannot be written to "
                f"{self.location}: {in_one_line(error)}. Finished trials are kept, and the same "
                "command goes on: mend its permissions, or the connection."
            ) from error

    def _write_local(self, path: Path, body: BinaryIO) -> None:
        with replacing(path) as part, part.open("wb") as file:
            shutil.copyfileobj(body, file)

    def _write_remote(self, name: str, body: BinaryIO) -> None:
        part = f"{name}-{uuid4().hex}.part"
        try:
            if self._protocol not in _BUCKETS:
                self.files.makedirs(name.rpartition("/")[0], exist_ok=True)
            # fsspec keeps a partial file when the writing is broken off.
            with self.files.open(part, "wb") as file:
                shutil.copyfileobj(body, file)
            self.files.mv(part, name)
        except BaseException:
            with suppress(Exception):
                self.files.rm_file(part)
            raise

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file to read it; ArtifactNotFound if there is none."""
        with self._found(artifact_id):
            return self.files.open(artifact_id, "rb")

    def remove(self, artifact_id: str) -> None:
        """Remove a file; ArtifactNotFound if there is none."""
        with self._found(artifact_id):
            self.files.rm_file(artifact_id)

    @contextmanager
    def _found(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ArtifactNotFound(f"{name} is not in {self.location}") from None

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name; StorageError if that cannot be seen."""
        try:
            self.files.invalidate_cache()  # others write there, too
            self.files.info(name)  # `exists` takes every error for an absent file
        except FileNotFoundError:
            return False
        except Exception as error:
            self._unreachable(error)
        return True

    def _unreachable(self, error: BaseException) -> NoReturn:
        raise StorageError(
            "artifacts must lie where files can be written and read, but cannot at "
            f"{self.location} ({in_one_line(error) or type(error).__name__}); mend the key "
            "`artifacts`, its permissions, or the connection"
        ) from error


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one trial, of all its attempts.

    Where artifacts are kept in a folder, this is a folder in it. Elsewhere an attempt works in a
    temporary folder, which begins as a copy and whose files are put back as they are written.

    Two workers may write here at once, where one wakes so late that its trial is another's. Both
    compute the same run and each file is replaced as a whole, so the worst is that an attempt goes
    on from an earlier epoch.
    """

    artifacts: ArtifactStore
    name: str
    """Name of the folder among the artifacts."""

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Give the folder to work in, with what earlier attempts have written."""
        if self.artifacts.folder:
            yield self.artifacts.folder / self.name
            return
        with TemporaryDirectory(prefix="sculpt-") as made:
            with self._as_warning("cannot be fetched"):
                self.artifacts.files.invalidate_cache()
                for path in self.artifacts.files.find(self.name):
                    copy = Path(made, path.removeprefix(f"{self.name}/"))
                    if copy.suffix != ".part":  # which is still being written
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        self.artifacts.files.get_file(path, str(copy))
            yield Path(made)

    def put(self, folder: Path, file: Path) -> None:
        """Put back a file that was written in the folder that `opened` gave."""
        if self.artifacts.folder is None:
            with self._as_warning("cannot be kept"), file.open("rb") as body:
                name = f"{self.name}/{file.relative_to(folder).as_posix()}"
                self.artifacts.write(name, body)

    def remove(self) -> None:
        """Remove the checkpoints, once there will be no later attempt."""
        if self.artifacts.folder:
            shutil.rmtree(self.artifacts.folder / self.name, ignore_errors=True)
            return
        with self._as_warning("cannot be removed"), suppress(FileNotFoundError):
            self.artifacts.files.invalidate_cache()
            self.artifacts.files.rm(self.name, recursive=True)

    @contextmanager
    def _as_warning(self, problem: str) -> Iterator[None]:
        """Turn an error into a warning: a trial can be finished without its checkpoints."""
        try:
            yield
        except Exception as error:  # drivers have errors of their own
            message = (
                f"a checkpoint of {self.artifacts.location} {problem} ({error}); the trial goes on"
            )
            warnings.warn(message, SculptWarning, stacklevel=4)


def storage_file(config: Study) -> Path:
    """Return the file beside which a study keeps other files; for a server, one in `runs/`."""
    location = config.storage_url.removeprefix("sqlite:///")
    return Path(location) if location.endswith(".db") else Path("runs", f"{config.study}.db")


def artifacts_of(config: Study, *, moved: bool = False) -> ArtifactStore:
    """Return the artifacts of a study, at the place it names or beside its storage's file.

    With `moved`, a folder that is not there was moved together with the storage's file, to lie
    beside it.
    """
    file = storage_file(config)
    beside = file.with_name(f"{file.stem}-artifacts")
    artifacts = ArtifactStore(config.artifacts or beside)
    gone = artifacts.folder and not artifacts.folder.exists()
    return ArtifactStore(beside) if moved and gone else artifacts


def share_artifacts(study: optuna.Study, artifacts: ArtifactStore) -> None:
    """Make sure that all who run a study keep its artifacts in one place; StorageError if they were
    kept elsewhere so far."""
    key = study.user_attrs.get(KEY)
    new = key is None  # also of a study that an older version started
    key = key or uuid4().hex[:16]
    marker = f"study-{study.study_name}-{key}.json"
    if new:
        text = f'{{"study": "{study.study_name}", "about": "its artifacts are kept here"}}\n'
        artifacts.write(marker, BytesIO(text.encode()))
        study.set_user_attr(KEY, key)
    elif not artifacts.has(marker):
        raise StorageError(
            f"artifacts must be reachable by all workers of a study, but those of "
            f"{study.study_name!r} are kept elsewhere: {artifacts.location} has no file "
            f"{marker}. Set `artifacts` to a location that all machines reach; if the files have "
            "moved, copy them there; to go on without them, make an empty file of that name there"
        )
