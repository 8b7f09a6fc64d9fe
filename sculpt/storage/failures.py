"""Failures of a study's database: recognised in the drivers' errors, and waited out."""

import errno
import os
import re
import sqlite3
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from sculpt.errors import StorageError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 60.0
"""How long a server may be away before a run ends: a restart takes seconds."""


class LostStorageError(StorageError):
    """A study's storage stopped working; finished writes are kept, and the study can go on.

    `passes` says whether it may pass by itself: a server restarts, a connection was cut.
    """

    exit_code = 1
    passes = False


class LostLockError(LostStorageError):
    """The connection that held the lock was cut: reads under it may be out of date."""

    passes = True


class LostClaimError(LostStorageError):
    """A queued trial was claimed, and it is not known by whom: start over by looking."""

    passes = True


_KEPT = "Finished trials are kept, and the same command goes on"

# SQLite's primary error codes that every other statement on the same file would meet, too.
_PERMISSIONS = "mend the permissions of the file and of its folder"
_RESTORE, _OTHERS = "restore the file from a copy", "end the other process that writes to it"
_SQLITE_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_IOERR: "look at the disk that it is on",
    sqlite3.SQLITE_READONLY: _PERMISSIONS,
    sqlite3.SQLITE_PERM: _PERMISSIONS,
    sqlite3.SQLITE_CANTOPEN: _PERMISSIONS,
    sqlite3.SQLITE_CORRUPT: _RESTORE,
    sqlite3.SQLITE_NOTADB: _RESTORE,
    sqlite3.SQLITE_BUSY: _OTHERS,
    sqlite3.SQLITE_LOCKED: _OTHERS,
}

# SQLSTATEs and their classes: connection, rolled back, resources, operator's intervention, system.
_SERVER_STATES = ("08", "40", "53", "57", "58", "25006", "55P03")
_LASTING_STATES = ("53100", "57014", "57P04", "58", "25006", "55P03")

# A failure to connect has no SQLSTATE, only words. A server that speaks another language is asked
# again until patience ends, which does no harm.
_LASTING = re.compile(
    "authentication failed|no password supplied|does not exist|no pg_hba.conf entry|"
    "could not translate host name|failed to resolve host|not permitted to log in|"
    "permission denied for database|does not support SSL|invalid port|invalid integer"
)

_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def translate_failures(engine: Engine, place: str) -> None:
    """Make `engine` raise `LostStorageError` where its database, called `place`, cannot go on.

    Optuna then sees no such error under a name by which it would repeat what must not be repeated.
    """

    def on_error(context: ExceptionContext) -> None:
        # A pooled connection that turns out to be dead is replaced: that is no failure.
        cut, error = context.is_disconnect, context.original_exception
        if not context.is_pre_ping and (failure := failure_in(error, place, cut=cut)):
            raise failure

    event.listen(engine, "handle_error", on_error)


def failure_in(
    error: BaseException | None, place: str, *, cut: bool = False
) -> LostStorageError | None:
    """Return the failure of a database, called `place`, that a driver's error reports, or None;
    `cut` says that the connection was found to be dead."""
    if isinstance(error, sqlite3.Error):
        remedy = _SQLITE_REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if remedy is None:
            return None
        return LostStorageError(
            f"A study's file must stay readable and writable, but {place}: {error}. "
            f"{_KEPT}: {remedy}."
        )
    if not isinstance(error, Exception):
        return None
    state = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
    if state:
        reported = state.startswith(_SERVER_STATES)
        lasts = state.startswith(_LASTING_STATES)
    else:
        reported = cut or type(error).__name__ in ("OperationalError", "ConnectionTimeout")
        lasts = bool(_LASTING.search(str(error)))
    if not reported:
        return None
    failure = LostStorageError(
        f"A study's database must stay reachable and writable, but {place}: {in_one_line(error)}. "
        f"{_KEPT} when the server answers again."
    )
    failure.passes = not lasts
    return failure


def storage_failure(error: BaseException | None) -> LostStorageError | None:
    """Return the failure of a storage, or of a full disk, that an error came from, or None: Optuna
    and Python hide it behind others on its way up."""
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


class Patience:
    """Repeats calls that do no harm when they are made twice, while the server is away.

    All calls share its time: once it is used up, each is tried once, until one succeeds. Otherwise
    the dozen statements by which a trial ends would each wait for a dead server.
    """

    def __init__(self, seconds: float = RETRY_SECONDS) -> None:
        self._seconds = seconds
        self._away_since: float | None = None

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function`, again if need be; raise the LostStorageError that is left when patience
        ends, or does not pass."""
        started = time.monotonic()

        def once() -> T:
            try:
                result = function(*args, **kwargs)
            except LostStorageError as lost:
                if lost.passes and self._away_since is None:
                    self._away_since = time.monotonic()
                raise
            self._away_since = None
            return result

        def is_over(_: RetryCallState) -> bool:
            return time.monotonic() - min(started, self._away_since or started) >= self._seconds

        return Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, LostStorageError) and e.passes),
            wait=wait_random_exponential(multiplier=0.1, max=3.0),
            stop=is_over,
            reraise=True,
        )(once)
