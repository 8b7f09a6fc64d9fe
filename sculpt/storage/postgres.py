"""The PostgreSQL database behind a study: its connections, its lock, and checks before use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text

from sculpt.errors import StorageError
from sculpt.storage.failures import (
    LostLockError,
    LostStorageError,
    Patience,
    in_one_line,
    translate_failures,
)
from sculpt.storage.optuna_names import rdb_storage

OPENING_SECONDS = 8.0
"""How long a server may be away when a study is opened: the URL may be wrong, so not for long."""

# A dead machine is noticed within a minute by both ends: by the client, whose statement is then
# repeated, and by the server (`options`), which then frees its locks. Milliseconds for timeouts
# of unacknowledged data.
_ALIVE = {"idle": "20", "interval": "10", "count": "3"}
_CONNECT = {
    "connect_timeout": "5",
    "keepalives": "1",
    "tcp_user_timeout": "50000",
    **{f"keepalives_{name}": value for name, value in _ALIVE.items()},
    "options": "-c tcp_user_timeout=50000"
    + "".join(f" -c tcp_keepalives_{name}={value}" for name, value in _ALIVE.items()),
}

# PostgreSQL keeps advisory locks apart by database; these numbers keep ours apart from others'.
_LOCK, _FENCE = int.from_bytes(b"sculpt"), int.from_bytes(b"sculpt'")

_CREATES_A_TRIAL = "INSERT INTO trials "
_WAIT = text(f"SELECT pg_advisory_lock({_LOCK})")
_PASS_FENCE = text(f"SELECT pg_advisory_xact_lock_shared({_FENCE})")
_WAIT_AT_FENCE = text(f"SELECT pg_advisory_xact_lock({_FENCE})")


class _Held(threading.local):
    """What each thread holds the lock by."""

    by: Connection | None = None


class PostgresDatabase:
    """A database, and a lock across machines, freed by the server when its connection ends.

    The lock keeps out other threads, too; the thread that holds it may take it again.

    A connection can be cut while its holder goes on, and another process be given the lock. That
    is harmless because trials are created in transactions that pass a fence. A new holder waits
    for all transactions inside of the fence before it looks at the study; so it sees the trials
    that they created. A transaction that comes to the fence later finds the connection of its own
    lock dead, and ends. Other writes count only after a `check`.

    Attributes:
        url: Its URL, with its driver and password.
        options: Options of the engine that a study's statements use.

    Raises:
        StorageError: The driver is not installed.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        # READ COMMITTED is PostgreSQL's own default, which a site may have changed: Optuna numbers
        # trials by what others have committed while it waited for the study's row.
        self.options = {
            "pool_pre_ping": True,
            "isolation_level": "READ COMMITTED",
            "connect_args": _connect_args(url),
        }
        self._patience = Patience()
        self._threads = threading.RLock()
        self._held = _Held()
        try:
            self._engine = create_engine(  # of one connection, outside of transactions
                url,
                pool_size=1,
                pool_reset_on_return=None,
                isolation_level="AUTOCOMMIT",
                # A lock may be waited for long here, whatever is set for the user.
                connect_args=_connect_args(url, " -c statement_timeout=0 -c lock_timeout=0"),
            )
        except ImportError:
            raise StorageError(
                f"{self} needs a PostgreSQL driver that is not installed. Install it with: "
                "pip install 'sculpt[postgres]'"
            ) from None
        translate_failures(self._engine, str(self))
        event.listen(self._engine, "reset", _unlock)

    def __reduce__(self) -> tuple[type["PostgresDatabase"], tuple[URL]]:
        return PostgresDatabase, (self.url,)

    def __str__(self) -> str:
        return shown(self.url)

    def tables(self) -> set[str]:
        """Return the names of its tables; StorageError if it cannot be reached."""
        query = text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")

        def read() -> set[str]:
            with self._engine.connect() as connection:
                return set(connection.execute(query).scalars())

        try:
            return Patience(OPENING_SECONDS)(read)
        except LostStorageError as lost:
            message = scrubbed(lost.__cause__ or lost, self.url)
            remedy = "Mend the URL, or start the server."
            if "database" in message and "does not exist" in message:
                remedy = "Make it (createdb NAME), or mend the URL."
            elif "password" in message or "authentication" in message:
                remedy = (
                    "Mend the password: in the variable PGPASSWORD, in ~/.pgpass, or in the URL."
                )
            raise StorageError(
                f"A study's database must be reachable, but {self} is not: {message}. {remedy}"
            ) from None

    def make(self) -> None:
        """Make Optuna's tables, under the lock, because that takes several steps."""
        with self.held():
            rdb_storage(self.url, self.options, create=True).engine.dispose()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in this context."""
        with self._threads:
            if self._held.by:  # this very thread holds it already
                yield
                return
            self._held.by = connection = self._patience(self._take)
            try:
                yield
            finally:
                self._held.by = None
                with suppress(LostStorageError):  # a cut connection holds no lock either
                    connection.close()

    def check(self) -> None:
        """Raise a `LostLockError` if this thread has taken the lock and holds it no more; start
        over by taking it again."""
        if not self._held.by:
            return
        lost = LostLockError(
            "The lock of a study must be held while it is written, but its connection was cut. "
            "Finished trials are kept, and the same command goes on."
        )
        if self._held.by.invalidated:  # SQLAlchemy would make a new connection, without a lock
            raise lost
        try:
            # Asked of the very session that took the lock: if it answers, it still holds it.
            self._held.by.execute(text("SELECT 1"))
        except LostStorageError as error:
            raise lost from error

    def watch(self, engine: Engine) -> None:
        """Make an engine raise `LostStorageError` where the database cannot go on.

        In a thread that has taken the lock, its transactions create trials only while the lock is
        still held, and raise `LostLockError` otherwise.
        """

        def before(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(_CREATES_A_TRIAL) and self._held.by:
                connection.execute(_PASS_FENCE)  # until the transaction's end
                self.check()

        translate_failures(engine, str(self))
        event.listen(engine, "before_cursor_execute", before)

    def close(self) -> None:
        """Close the connection that is kept for the next taking."""
        self._engine.dispose()

    def _take(self) -> Connection:
        # If the pooled connection was cut meanwhile, this fails, and is done again with a new one.
        connection = self._engine.connect()
        try:
            # Waits in the server's queue, which is fair. psycopg lets Ctrl-C interrupt it.
            connection.execute(_WAIT)
            connection.execute(_WAIT_AT_FENCE)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection


def _unlock(connection: Any, *_: Any) -> None:
    """Free the locks of a connection that goes back to the pool, also by garbage collection."""
    with suppress(Exception):  # a cut connection holds none, and fails when it is used again
        connection.cursor().execute("SELECT pg_advisory_unlock_all()")


def _connect_args(url: URL, more: str = "") -> dict[str, str]:
    arguments = _CONNECT | {"options": _CONNECT["options"] + more}
    # What the URL says itself counts.
    return {key: value for key, value in arguments.items() if key not in url.query}


def shown(url: URL) -> str:
    """Return `url` for a message: without its password, and without options, which may hold it."""
    return url.set(query={}).render_as_string(hide_password=True)


def scrubbed(error: BaseException, url: URL) -> str:
    """Return the message of `error`, on one line, without the password in `url`."""
    message = in_one_line(error)
    for secret in (url.password, *url.query.values()):
        if isinstance(secret, str) and secret:
            message = message.replace(secret, "***")
    return message
