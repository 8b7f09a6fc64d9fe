"""The SQLite file behind a study: made whole or not at all, and checked before it is used."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock
from optuna.exceptions import StorageInternalError
from sqlalchemy import URL, Engine, NullPool
from sqlalchemy.exc import SQLAlchemyError

from sculpt.errors import StorageError
from sculpt.storage.failures import translate_failures
from sculpt.storage.optuna_names import rdb_storage

BUSY_SECONDS = 60
"""How long a statement waits for SQLite's write lock; Optuna's 5 s run out under load."""

MOUNTS = Path("/proc/mounts")
"""Linux's list of mounted file systems; elsewhere nothing is checked."""

_NETWORK = re.compile(
    r"afs|beegfs|ceph|cifs|davfs|glusterfs|gpfs|lustre|ncpfs|nfs[34]?|orangefs|panfs|pvfs2|smb[23]|"
    r"smbfs|wekafs|fuse\.(ceph|davfs|gcsfuse|glusterfs|rclone|s3fs|sshfs)"
)
"""Types of network file systems, as the kernel calls them."""


class SqliteFile:
    """A SQLite file, and the lock beside it, which the kernel frees when its holder is killed.

    The lock keeps out other processes and threads; the thread that holds it may take it again.

    Attributes:
        url: Its URL, absolute.
        options: Options of the engine that a study's statements use.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.expanduser().absolute()
        self.url = URL.create("sqlite", database=str(self._file))
        self.options = {"connect_args": {"timeout": BUSY_SECONDS}}
        # One lock for all that a thread has opened: it may take it again through any of them.
        self._lock = FileLock(_beside(self._file, ".lock"), poll_interval=0.01, is_singleton=True)

    def __reduce__(self) -> tuple[type["SqliteFile"], tuple[Path]]:
        return SqliteFile, (self._file,)

    def __str__(self) -> str:
        return str(self._file)

    def held(self) -> FileLock:
        """Return the lock, to be held as a context; StorageError if its file cannot be made, where
        to wait for it would never end."""
        file = _beside(self._file, ".lock")
        try:
            if file.is_dir():
                raise IsADirectoryError(f"{file} is a folder")
            file.touch()
        except OSError as error:
            raise StorageError(
                f"A study's file must be readable and its folder writable, got {self}: {error}. "
                "Choose another path, or mend the permissions."
            ) from error
        return self._lock

    def check(self) -> None:
        """Do nothing: this lock is never lost."""

    def watch(self, engine: Engine) -> None:
        """Make an engine raise `LostStorageError` where the file cannot go on."""
        translate_failures(engine, str(self))

    def close(self) -> None:
        """Do nothing: a lock that is not held keeps no file open."""

    def tables(self) -> set[str]:
        """Return the names of its tables; none where the file is absent, or empty.

        Raises:
            StorageError: It is no file, cannot be read, is none of SQLite's, or would lie on a
                network file system.
        """
        file = self._file
        try:
            mount, kind = _mounted(file)
            if _NETWORK.fullmatch(kind):
                raise StorageError(
                    "A study's file must be on a disk of this machine, because SQLite's locks and "
                    f"its write-ahead log do not work over a network, got {file}: {mount} is of "
                    f"type {kind}. Give a local path, or a PostgreSQL URL "
                    "(postgresql://USER@HOST/NAME)."
                )
            if _is_absent(file):
                return set()
            if not file.is_file():
                raise OSError("it is no file")  # to open a pipe would never end
            return _read_tables(file)
        except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
            raise StorageError(
                f"A study's file must be a readable SQLite database of Optuna's, got {file}: "
                f"{error}. Choose another path, or restore the file from a copy."
            ) from error

    def make(self) -> None:
        """Make the file, with Optuna's tables; StorageError if that cannot be done."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self.held():
                if _is_absent(self._file):  # no other process was faster
                    _create(self._file)
        except (OSError, sqlite3.Error, SQLAlchemyError, StorageInternalError) as error:
            raise StorageError(
                f"A study's file must be readable and its folder writable, got {self}: {error}. "
                "Choose another path, or mend the permissions."
            ) from error


def _mounted(file: Path) -> tuple[str, str]:
    """Return the mount point of the file system of `file`, and its type; empty if unknown."""
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return "", ""
    target = file.resolve()
    found = "", ""
    for line in lines:
        _, mount, kind, *_ = line.split(" ")
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount)
        # The last of several mounts at one place is on top.
        if len(mount) >= len(found[0]) and target.is_relative_to(mount):
            found = mount, kind
    return found


def _is_absent(file: Path) -> bool:
    # Merely looking at a path with sqlite3 leaves an empty file there; there is nothing to lose.
    return not file.exists() or (file.is_file() and file.stat().st_size == 0)


def _create(file: Path) -> None:
    # Elsewhere first, then renamed: a kill never leaves half the tables under the final name.
    fresh = _beside(file, ".new")
    fresh.unlink(missing_ok=True)  # what a killed attempt left
    for suffix in ("-journal", "-wal"):
        # The log of a database that was deleted: SQLite would replay it into the new file.
        _beside(file, suffix).unlink(missing_ok=True)
    with closing(sqlite3.connect(fresh)) as connection:
        # Readers and one writer at a time side by side; the mode stays with the file.
        connection.execute("PRAGMA journal_mode = WAL")
    _make_tables(fresh)
    os.replace(fresh, file)


def _make_tables(file: Path) -> None:
    url = URL.create("sqlite", database=str(file))
    rdb_storage(url, {"poolclass": NullPool}, create=True)


def _read_tables(file: Path) -> set[str]:
    # Before Optuna, which writes what it misses: what is refused stays as it was.
    uri = f"{file.as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in rows}
        if not tables:
            raise sqlite3.DatabaseError("it has no tables")
        if tables >= {"alembic_version", "version_info"}:
            versions = "SELECT version_num, schema_version FROM alembic_version, version_info"
            if not connection.execute(versions).fetchone():
                raise sqlite3.DatabaseError("it does not say its version")
        return tables


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)
