"""A lock across processes and machines, kept by the PostgreSQL server that keeps the study."""

import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, event, make_url, text

from sculpt.search.storage.failures import LostLockError, LostStorageError
from sculpt.search.storage.patience import Patience
from sculpt.search.storage.server import lone_engine

# PostgreSQL keeps advisory locks apart by database; these numbers keep ours apart from others'.
_KEYS = {"lock": int.from_bytes(b"sculpt"), "fence": int.from_bytes(b"sculpt'")}

_CREATES_A_TRIAL = "INSERT INTO trials "
_ASK = text("SELECT 1")
_WAIT = text("SELECT pg_advisory_lock(:lock)").bindparams(lock=_KEYS["lock"])
_RELEASE = text("SELECT pg_advisory_unlock(:lock)").bindparams(lock=_KEYS["lock"])
_PASS_FENCE = text("SELECT pg_advisory_xact_lock_shared(:key)").bindparams(key=_KEYS["fence"])
_WAIT_AT_FENCE = text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=_KEYS["fence"])


class ServerLock:
    """A lock that its server frees when the connection of its holder ends.

    The thread that holds it may take it again. It keeps out other threads, too.

    A connection can be cut while its holder goes on, and another process be given the lock. What
    makes that harmless: trials are created in transactions that pass the `fence`. Whoever is given
    the lock waits for all transactions inside of the fence, and only then looks at the study; so
    it sees what they created. A transaction that comes to the fence later finds the connection of
    its own lock dead, and ends. What is written in other ways counts after a `check` alone.

    Args:
        url: Of the database, with its driver and password.
    """

    def __init__(self, url: str) -> None:
        self._engine = lone_engine(make_url(url))
        self._patience = Patience()
        self._threads = threading.RLock()
        self._owner: int | None = None
        self._depth = 0
        self._connection: Connection | None = None
        self._idle: Connection | None = None
        """Of the last taking: to connect takes several times as long as to lock."""

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            if self._depth == 0:
                self._connection = self._patience(self._take)
                self._owner = threading.get_ident()
            self._depth += 1
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._depth -= 1
            if self._depth == 0 and self._connection is not None:
                self._owner = None
                connection, self._connection = self._connection, None
                with suppress(LostStorageError):  # a cut connection holds no lock either
                    self._release(connection)
        finally:
            self._threads.release()

    def check(self) -> None:
        """Make sure that this thread still holds the lock, if it has taken it.

        Raises:
            LostLockError: It does not; start over by taking it again.
        """
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
            self._connection.execute(_ASK)
        except LostStorageError as error:
            raise lost from error

    def fence(self, engine: Engine) -> None:
        """Let transactions of an engine create trials only while the thread that took this lock
        still holds it; of threads that have not taken it nothing is asked.

        Their statements raise `LostLockError` where it is held no more.
        """

        def before(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(_CREATES_A_TRIAL) and self._owner == threading.get_ident():
                connection.execute(_PASS_FENCE)  # until the transaction's end
                self.check()

        event.listen(engine, "before_cursor_execute", before)

    def disconnect(self) -> None:
        """Close the connection that is kept for the next taking, unless the lock is held."""
        with self._threads:
            idle, self._idle = self._idle, None
            if idle is not None:
                with suppress(LostStorageError):
                    idle.close()

    def _release(self, connection: Connection) -> None:
        if connection.invalidated:
            connection.close()
            return
        try:
            connection.execute(_RELEASE)
            connection.commit()  # of SQLAlchemy's own transaction; the server has none
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._idle = connection

    def _take(self) -> Connection:
        # If the idle one was cut meanwhile, this fails, and is done again with a new one.
        idle, self._idle = self._idle, None
        connection = idle or self._engine.connect()
        try:
            # Waits in the server's queue, which is fair. psycopg lets Ctrl-C interrupt it.
            connection.execute(_WAIT)
            connection.execute(_WAIT_AT_FENCE)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection
