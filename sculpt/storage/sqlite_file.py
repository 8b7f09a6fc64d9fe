"""The SQLite file behind a study: made whole or not at all, and checked before it is used."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import NullPool
from sqlalchemy.exc import SQLAlchemyError

from sculpt.errors import StorageError
from sculpt.storage.storage_url import file_url, optuna_url

BUSY_SECONDS = 60
"""How long a statement waits for SQLite's write lock; Optuna's 5 s run out under load."""

MOUNTS = Path("/proc/mounts")
"""Linux's list of mounted file systems; elsewhere nothing is checked."""

_NETWORK = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs3", "nfs4", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "wekafs"}
    | {"fuse.ceph", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"}
    | {"fuse.sshfs"}
)
"""Types of network file systems, as the kernel calls them."""

_TABLES = frozenset({"alembic_version", "studies", "trials", "version_info"})


def sqlite_options() -> dict[str, Any]:
    """Return the options of the engine that a study's statements use."""
    return {"connect_args": {"timeout": BUSY_SECONDS}}


def file_lock(file: Path) -> FileLock:
    """Return the lock kept beside `file`; the kernel frees it when its holder is killed."""
    return FileLock(_beside(file, ".lock"), poll_interval=0.01)


def prepare(file: Path, *, create: bool) -> None:
    """Make sure that `file` is an Optuna storage, and make it if it is absent and `create` is true.

    Optuna itself compares the versions. A file that is refused is left as it was.

    Raises:
        StorageError: It is absent, cannot be made, is none, or would lie on a network file system.
    """
    mount, kind = _mounted(file)
    if kind in _NETWORK:
        raise StorageError(
            f"A study's file must be on a disk of this machine, because SQLite's locks and its "
            f"write-ahead log do not work over a network, got {file}: {mount} is of type {kind}. "
            "Give a local path, or a PostgreSQL URL (postgresql://USER@HOST/NAME)."
        )
    try:
        if _is_absent(file):
            if not create:
                raise StorageError(
                    f"A study must have been run before it can be read, and there is no {file}. "
                    "Run the study first, or mend the path."
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            # FileLock waits for ever where no file can be made (in /proc, say); this raises.
            _beside(file, ".lock").touch()
            with file_lock(file):
                if _is_absent(file):  # no other process was faster
                    _create(file)
    except (OSError, sqlite3.Error, SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(
            f"A study's file must be readable and its folder writable, got {file}: {error}. "
            "Choose another path, or mend the permissions."
        ) from error
    _refuse_foreign(file)


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
    RDBStorage(optuna_url(file_url(file)), {"poolclass": NullPool})


def _refuse_foreign(file: Path) -> None:
    """Look before Optuna does, which writes what it misses: what is refused stays as it was."""
    try:
        uri = f"{file.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in rows}
            if not tables >= _TABLES:
                raise StorageError(
                    f"A study's file must be Optuna's, got {file}, a SQLite database with "
                    f"{'the tables ' + ', '.join(sorted(tables)) if tables else 'no tables'}. "
                    "Choose another path."
                )
            versions = "SELECT version_num, schema_version FROM alembic_version, version_info"
            if not connection.execute(versions).fetchone():
                raise sqlite3.DatabaseError("it does not say its version")
    except sqlite3.Error as error:
        raise StorageError(
            f"A study's file must be a readable SQLite database of Optuna's, got {file}: {error}. "
            "Choose another path, or restore the file from a copy."
        ) from error


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)
