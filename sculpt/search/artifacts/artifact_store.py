"""Where the files of a study are kept: a folder, or a place that fsspec reaches over a network."""

import re
import shutil
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from uuid import uuid4

import fsspec
from optuna.artifacts.exceptions import ArtifactNotFound

from sculpt.errors import InputError, StorageError
from sculpt.files import replacing
from sculpt.search.storage.failures import LostStorageError, in_one_line

_LOCAL = ("file://", "local://")

_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci")
"""Object stores. They have no folders: to make one would make a bucket of a misspelt name."""


class ArtifactStore:
    """Files by name in one place. Optuna and its dashboard read and write artifacts through it.

    A file is there whole or not at all, whenever its writer dies.

    Attributes:
        location: As it was given.
        folder: The folder, on this machine or on a file system it shares; None for a URL of
            anything else.

    Raises:
        InputError: the location holds what may be secret, or is no single place.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        _check_location(self.location)
        self.folder: Path | None = None
        prefix = next(filter(self.location.startswith, _LOCAL), "")
        if prefix or "://" not in self.location:
            self.folder = Path(self.location.removeprefix(prefix)).expanduser().absolute()

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system, and the path in it. Connected to when it is first needed.

        Raises:
            InputError: its driver is not installed, or there is none.
            StorageError: it cannot be reached.
        """
        if self.folder:
            return fsspec.filesystem("file"), self.folder.as_posix()
        try:
            return fsspec.core.url_to_fs(self.location)
        except (ImportError, ValueError) as error:
            extra = "; pip install 'sculpt[s3]'" if self._protocol in ("s3", "s3a") else ""
            raise InputError(
                "artifacts must be a folder, or a URL that an installed driver of fsspec can "
                f"open, but got {self.location} ({in_one_line(error)}{extra})"
            ) from None
        except Exception as error:
            self._unreachable(error)

    @property
    def _protocol(self) -> str:
        return self.location.partition("://")[0]

    def check(self) -> None:
        """Make sure that files can be written, read and removed; leave nothing behind.

        Raises:
            InputError: see above.
            StorageError: they cannot.
        """
        name, text = f"check-{uuid4().hex}", b"Written to see whether files can be."
        made = []
        if self.folder:
            made = [f for f in (self.folder, *self.folder.parents) if not f.exists()]
        try:
            self.write(name, BytesIO(text))
            with self.open_reader(name) as reader:
                if reader.read() != text:
                    raise OSError("what was written is not what is read")
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
        """Write a file, in the place of one of the same name. Optuna's name and arguments.

        Args:
            artifact_id: Its name; folders in it are made.
            content_body: Is read from where it stands to its end.

        Raises:
            LostStorageError: it cannot be written.
        """
        try:
            if self.folder:
                with replacing(self.folder / artifact_id) as part, part.open("wb") as file:
                    shutil.copyfileobj(content_body, file)
                return
            self._write_beside(artifact_id, content_body)
        except (InputError, StorageError):
            raise
        except Exception as error:  # drivers have errors of their own
            raise LostStorageError(
                f"artifacts must stay writable, but {artifact_id} cannot be written to "
                f"{self.location}: {in_one_line(error)}. Finished trials are kept, and the same "
                "command goes on: mend its permissions, or the connection."
            ) from error

    def _write_beside(self, name: str, body: BinaryIO) -> None:
        files, root = self._place
        path = f"{root}/{name}"
        part = f"{path}-{uuid4().hex}.part"
        try:
            if self._protocol not in _BUCKETS:
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
            # fsspec keeps what was written of a file when the writing is broken off.
            with files.open(part, "wb") as file:
                shutil.copyfileobj(body, file)
            files.mv(part, path)
        except BaseException:
            with suppress(Exception):
                files.rm_file(part)
            raise

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file to read it. Optuna's name and argument.

        Raises:
            ArtifactNotFound: there is none of this name.
            OSError: it cannot be read, or whatever else the driver raises.
        """
        files, root = self._place
        try:
            return files.open(f"{root}/{artifact_id}", "rb")
        except FileNotFoundError:
            raise ArtifactNotFound(f"{artifact_id} is not in {self.location}") from None

    def remove(self, artifact_id: str) -> None:
        """Remove a file. Optuna's name and argument.

        Raises:
            ArtifactNotFound: there is none of this name.
            OSError: it cannot be removed, or whatever else the driver raises.
        """
        files, root = self._place
        try:
            files.rm_file(f"{root}/{artifact_id}")
        except FileNotFoundError:
            raise ArtifactNotFound(f"{artifact_id} is not in {self.location}") from None

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name.

        Raises:
            StorageError: that cannot be seen.
        """
        files, root = self._place
        try:
            files.invalidate_cache()  # others write there, too
            files.info(f"{root}/{name}")
        except FileNotFoundError:
            return False
        except Exception as error:
            self._unreachable(error)
        return True

    def fetch_folder(self, name: str, target: Path) -> None:
        """Copy all files under a name into a folder; those that are being written are left out.

        Raises:
            OSError: one cannot be read, or whatever else the driver raises.
        """
        files, root = self._place
        files.invalidate_cache()
        for path in files.find(f"{root}/{name}"):
            copy = target / path.removeprefix(f"{root}/{name}/")
            if copy.suffix != ".part":
                copy.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(path, str(copy))

    def remove_folder(self, name: str) -> None:
        """Remove all files under a name, if there are any.

        Raises:
            OSError: one cannot be removed, or whatever else the driver raises.
        """
        files, root = self._place
        files.invalidate_cache()
        with suppress(FileNotFoundError):
            files.rm(f"{root}/{name}", recursive=True)

    def _unreachable(self, error: BaseException) -> NoReturn:
        raise StorageError(
            "artifacts must lie where files can be written and read, but cannot at "
            f"{self.location} ({in_one_line(error) or type(error).__name__}); mend the key "
            "`artifacts`, its permissions, or the connection"
        ) from error


def _check_location(location: str) -> None:
    scheme, separator, rest = location.partition("://")
    if not separator:
        return
    if "::" in location:
        raise InputError(f"artifacts must be one place, not a chain, but got {location!r}")
    if re.match(r"[^:@]*:.*@", rest) or "?" in rest:
        # The location is stored, and shown: what is secret in it would be, too.
        raise InputError(
            f"artifacts must be a URL without keys, passwords and options, but got {scheme}://..."
            "; drivers read them from their own configuration (s3fs: AWS's files and variables, "
            "or fsspec's: https://filesystem-spec.readthedocs.io/en/latest/features.html)"
        )
