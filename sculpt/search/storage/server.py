"""The PostgreSQL database behind a study: how it is connected to, and what is looked at first."""

from typing import Any

from sqlalchemy import URL, Engine, NullPool, create_engine, text

from sculpt.errors import StorageError
from sculpt.search.storage.failures import LostStorageError, in_one_line, name_failures
from sculpt.search.storage.patience import Patience
from sculpt.search.storage.storage_url import scrubbed, shown

OPENING_SECONDS = 8.0
"""How long a server may be away when a study is opened: the URL may be wrong, so not for long."""

# A dead machine is noticed within a minute by both ends: by the client, whose statement is then
# repeated, and by the server (`options`), which then frees its locks. Milliseconds for timeouts
# of unacknowledged data.
_SERVER_SIDE = {
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "50000",
}
_CONNECT = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "50000",
    "options": " ".join(f"-c {name}={value}" for name, value in _SERVER_SIDE.items()),
}

_TABLES = frozenset({"studies", "trials", "version_info"})
"""Of Optuna's; `alembic_version` is not one that tells, because other programs have it, too."""


def with_driver(url: URL) -> URL:
    """Return `url` with the driver that the extra `postgres` installs, unless it names one."""
    # What SQLAlchemy takes a bare postgresql:// for depends on its version.
    bare = url.drivername == "postgresql"
    return url.set(drivername="postgresql+psycopg") if bare else url


def server_options(url: URL) -> dict[str, Any]:
    """Return the options of the engine that a study's statements use."""
    # READ COMMITTED is PostgreSQL's own default, which a site may have changed: Optuna numbers
    # trials by what others have committed while it waited for the study's row.
    return {
        "pool_pre_ping": True,
        "isolation_level": "READ COMMITTED",
        "connect_args": _connect_args(url),
    }


def lone_engine(url: URL) -> Engine:
    """Return an engine whose connections are of their own, outside of transactions.

    Raises:
        ImportError: The driver is not installed.
    """
    engine = create_engine(
        url,
        poolclass=NullPool,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        # Whoever waits for a lock here may wait long, whatever is set for the user.
        connect_args=_connect_args(url, " -c statement_timeout=0 -c lock_timeout=0"),
    )
    name_failures(engine, shown(url))
    return engine


def check_server(url: URL, *, create: bool) -> None:
    """Make sure that a database can be reached, and is empty or Optuna's.

    Args:
        url: Of a PostgreSQL database, with its driver.
        create: Whether it may be empty.

    Raises:
        StorageError: It is not so.
        ImportError: The driver is not installed.
    """
    engine = lone_engine(url)
    try:
        tables = Patience(OPENING_SECONDS)(_tables, engine)
    except LostStorageError as lost:
        raise StorageError(
            f"A study's database must be reachable, but {shown(url)} is not: "
            f"{in_one_line(scrubbed(lost.__cause__ or lost, url))}. {_remedy(str(lost))}"
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


def _connect_args(url: URL, more: str = "") -> dict[str, str]:
    arguments = _CONNECT | {"options": _CONNECT["options"] + more}
    # What the URL says itself counts.
    return {key: value for key, value in arguments.items() if key not in url.query}


def _tables(engine: Engine) -> set[str]:
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    with engine.connect() as connection:
        return set(connection.execute(query).scalars())


def _remedy(message: str) -> str:
    if "database" in message and "does not exist" in message:
        return "Make it (createdb NAME), or mend the URL."
    if "password" in message or "authentication" in message:
        return "Mend the password: in the variable PGPASSWORD, in ~/.pgpass, or in the URL."
    return "Mend the URL, or start the server."
