"""The PostgreSQL database behind a study: its connections, its lock, and checks before use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text

from sculpt.errors import StorageError
from sculpt.storage.failures import (
    LostLockError,
    LostStorageError,
    Patience,
    in_one_line,
    translate_failures,
)
from sculpt.storage.storage_url import scrubbed, shown

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

_TABLES = frozenset({"studies", "trials", "version_info"})
"""Optuna's tables; not `alembic_version`, because other programs have it, too."""

# PostgreSQL keeps advisory locks apart by database; these numbers keep ours apart from others'.
_LOCK, _FENCE = int.from_bytes(b"sculpt"), int.from_bytes(b"sculpt'")

_CREATES_A_TRIAL = "INSERT INTO trials "
_WAIT = text(f"SELECT pg_advisory_lock({_LOCK})")
_PASS_FENCE = text(f"SELECT pg_advisory_xact_lock_shared({_FENCE})")
_WAIT_AT_FENCE = text(f"SELECT pg_advisory_xact_lock({_FENCE})")


def server_options(url: URL) -> dict[str, Any]:
    """Return the options of the engine that a study's statements use."""
    # READ COMMITTED is PostgreSQL's own default, which a site may have changed: Optuna numbers
    # trials by what others have committed while it waited for the study's row.
    return {
        "pool_pre_ping": True,
        "isolation_level": "READ COMMITTED",
        "connect_args": _connect_args(url),
    }


def check_server(url: URL, *, create: bool) -> None:
    """Make sure that a database can be reached, and is Optuna's, or empty if it may be created.

    Raises:
        StorageError: It cannot be reached, or is another program's.
        ImportError: The driver is not installed.
    """
    engine = _lone_engine(url)
    try:
        tables = Patience(OPENING_SECONDS)(_tables, engine)
    except LostStorageError as lost:
        message = in_one_line(scrubbed(lost.__cause__ or lost, url))
        remedy = "Mend the URL, or start the server."
        if "database" in message and "does not exist" in message:
            remedy = "Make it (createdb NAME), or mend the URL."
        elif "password" in message or "authentication" in message:
            remedy = "Mend the password: in the variable PGPASSWORD, in ~/.pgpass, or in the URL."
        raise StorageError(
            f"A study's database must be reachable, but {shown(url)} is not: {message}. {remedy}"
        ) from None
    finally:
        engine.dispose()
    if not tables and not create:
        raise StorageError(
            f"A study must have been run before it can be read, and {shown(url)} is empty. "
            "Run the study first, or mend the URL."
        )
    if tables and not tables >= _TABLES:
        raise StorageError(
            f"A study's database must be empty or Optuna's, got {shown(url)} with the tables "
            f"{', '.join(sorted(tables))}. Make one of its own: createdb NAME"
        )


class ServerLock:
    """A lock across processes and machines, freed by the server when its holder's connection ends.

    It keeps out other threads, too; the thread that holds it may take it again.

    A connection can be cut while its holder goes on, and another process be given the lock. That
    is harmless because trials are created in transactions that pass the `fence`. A new holder
    waits for all transactions inside of the fence before it looks at the study; so it sees the
    trials that they created. A transaction that comes to the fence later finds the connection of
    its own lock dead, and ends. Other writes count only after a `check`.

    Args:
        url: The database, with its driver and password.
    """

    def __init__(self, url: str) -> None:
        self._engine = _lone_engine(make_url(url))
        self._patience = Patience()
        self._threads = threading.RLock()
        self._owner: int | None = None
        self._connection: Connection | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in this context."""
        with self._threads:
            if self._owner is not None:  # this very thread holds it already
                yield
                return
            connection = self._patience(self._take)
            self._connection, self._owner = connection, threading.get_ident()
            try:
                yield
            finally:
                self._owner = self._connection = None
                with suppress(LostStorageError):  # a cut connection holds no lock either
                    connection.close()

    def check(self) -> None:
        """Raise a `LostLockError` if this thread has taken the lock and holds it no more; start
        over by taking it again."""
        if self._owner != threading.get_ident() or self._connection is None:
            return
        lost = LostLockError(
            "The lock of a study must be held while it is written, but its connection was cut. "
            "Finished trials are kept, and the same command goes on."
        )
        if self._connection.invalidated:  # SQLAlchemy would make a new connection, without a lock
            raise lost
        try:
            # Asked of the very session that took the lock: if it answers, it still holds it.
            self._connection.execute(text("SELECT 1"))
        except LostStorageError as error:
            raise lost from error

    def fence(self, engine: Engine) -> None:
        """Let transactions of an engine create trials only while the thread that took this lock
        still holds it; nothing is asked of threads that have not taken it.

        Their statements raise `LostLockError` where it is held no more.
        """

        def before(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(_CREATES_A_TRIAL) and self._owner == threading.get_ident():
                connection.execute(_PASS_FENCE)  # until the transaction's end
                self.check()

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


def _lone_engine(url: URL) -> Engine:
    """Return an engine of one connection, outside of transactions."""
    engine = create_engine(
        url,
        pool_size=1,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        # A lock may be waited for long here, whatever is set for the user.
        connect_args=_connect_args(url, " -c statement_timeout=0 -c lock_timeout=0"),
    )
    translate_failures(engine, shown(url))
    event.listen(engine, "reset", _unlock)
    return engine


def _unlock(connection: Any, *_: Any) -> None:
    """Free the locks of a connection that goes back to the pool, also by garbage collection."""
    with suppress(Exception):  # a cut connection holds none, and fails when it is used again
        connection.cursor().execute("SELECT pg_advisory_unlock_all()")


def _connect_args(url: URL, more: str = "") -> dict[str, str]:
    arguments = _CONNECT | {"options": _CONNECT["options"] + more}
    # What the URL says itself counts.
    return {key: value for key, value in arguments.items() if key not in url.query}


def _tables(engine: Engine) -> set[str]:
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    with engine.connect() as connection:
        return set(connection.execute(query).scalars())
