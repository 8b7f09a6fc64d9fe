"""What a database says when it cannot go on, as one error that says what to do.

Every error of an engine passes `name_failures`, so that neither Optuna nor sculpt ever sees one
of these under another name, and Optuna does not repeat by itself what must not be repeated.
"""

import errno
import os
import sqlite3
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from sculpt.errors import StorageError


class LostStorageError(StorageError):
    """A study's storage stopped working; what was written is kept, and can be gone on from.

    Attributes:
        passes: Whether it may pass by itself: a server restarts, a connection was cut.
    """

    exit_code = 1
    passes = False


class LostLockError(LostStorageError):
    """The connection that held the lock was cut: what was read under it may hold no more."""

    passes = True


_KEPT = "Finished trials are kept, and the same command goes on"

# Errors that no other statement on the same file is spared, by SQLite's primary code.
_SQLITE_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_READONLY: "mend the permissions of the file and of its folder",
    sqlite3.SQLITE_PERM: "mend the permissions of the file and of its folder",
    sqlite3.SQLITE_CANTOPEN: "mend the permissions of the file and of its folder",
    sqlite3.SQLITE_IOERR: "look at the disk that it is on",
    sqlite3.SQLITE_CORRUPT: "restore the file from a copy",
    sqlite3.SQLITE_NOTADB: "restore the file from a copy",
    sqlite3.SQLITE_BUSY: "end the other process that writes to it",
    sqlite3.SQLITE_LOCKED: "end the other process that writes to it",
}

# SQLSTATEs and their classes: connection, rolled back, resources, operator's intervention, system.
_SERVER_STATES = ("08", "40", "53", "57", "58", "25006", "55P03")
_SERVER_STATES_THAT_STAY = ("53100", "57014", "57P04", "58", "25006", "55P03")

# A failure to connect has no SQLSTATE, only words. A server that speaks another language is asked
# again until patience ends, which does no harm.
_WORDS_THAT_STAY = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "could not translate host name",
    "failed to resolve host",
    "not permitted to log in",
    "permission denied for database",
    "does not support SSL",
    "invalid port",
    "invalid integer",
)

_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def name_failures(engine: Engine, place: str) -> None:
    """Make `engine` raise `LostStorageError` where its database cannot go on.

    Args:
        engine: Of SQLite or PostgreSQL.
        place: What the database is called in the message, without a password.
    """

    def on_error(context: ExceptionContext) -> None:
        # A pooled connection that turns out to be dead is replaced: that is no failure.
        if not context.is_pre_ping:
            failure = failure_in(context.original_exception, place, cut=context.is_disconnect)
            if failure:
                raise failure

    event.listen(engine, "handle_error", on_error)


def failure_in(
    error: BaseException | None, place: str, *, cut: bool = False
) -> LostStorageError | None:
    """Return what a driver's error says of its database, or None if it says nothing of it.

    Args:
        error: As the driver raised it.
        place: What the database is called in the message.
        cut: Whether the connection was found to be dead.
    """
    if not isinstance(error, Exception):
        return None
    if isinstance(error, sqlite3.Error):
        remedy = _SQLITE_REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if remedy is None:
            return None
        return LostStorageError(
            f"A study's file must stay readable and writable, but {place}: {error}. "
            f"{_KEPT}: {remedy}."
        )
    state: Any = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state:
        if not str(state).startswith(_SERVER_STATES):
            return None
        stays = str(state).startswith(_SERVER_STATES_THAT_STAY)
    else:
        if not cut and type(error).__name__ not in ("OperationalError", "ConnectionTimeout"):
            return None
        stays = any(words in str(error) for words in _WORDS_THAT_STAY)
    failure = LostStorageError(
        f"A study's database must stay reachable and writable, but {place}: {in_one_line(error)}. "
        f"{_KEPT} when the server answers again."
    )
    failure.passes = not stays
    return failure


def storage_failure(error: BaseException | None) -> LostStorageError | None:
    """Return the failure of a storage, or of a full disk, that an error came from; else None.

    Optuna and Python hide it behind others on its way up: a trial that cannot be written cannot
    be failed either.
    """
    while error is not None:
        if isinstance(error, LostStorageError):
            return error
        if any(words in str(error) for words in _NO_ROOM):
            return LostStorageError(
                f"A study's files must have room on a disk that can be written, but: "
                f"{in_one_line(error)}. {_KEPT}: free some space."
            )
        error = error.__cause__ or error.__context__
    return None


def in_one_line(error: BaseException | str) -> str:
    """Return the message of an error, which drivers spread over several lines."""
    return " ".join(str(error).split()).rstrip(".")
