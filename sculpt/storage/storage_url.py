"""Storage URLs: which are accepted, and how one is shown without its secrets."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from sculpt.errors import StorageError

_ACCEPTED = "Accepted are sqlite:///PATH, a path ending in .db, and postgresql://USER@HOST/NAME."


def parse(url: str) -> URL:
    """Parse the URL of a SQLite file (or its bare path, ending in .db) or of a PostgreSQL database,
    its driver included; StorageError if it is none of these."""
    if "://" not in url and url.endswith(".db"):
        return file_url(Path(url))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What cannot be parsed may hold a password anywhere: show no more than the scheme.
        scheme = url.partition(":")[0]
        raise StorageError(f"A study cannot be kept at {scheme!r}... {_ACCEPTED}") from None
    if parsed.get_backend_name() == "postgresql":
        # The driver that SQLAlchemy takes for a bare postgresql:// depends on its version.
        bare = parsed.drivername == "postgresql"
        return parsed.set(drivername="postgresql+psycopg") if bare else parsed
    if not is_sqlite(parsed):
        raise StorageError(f"A study cannot be kept at {shown(parsed)}. {_ACCEPTED}")
    database = parsed.database or ":memory:"
    if parsed.query or parsed.host or database.startswith((":memory:", "file:")):
        raise StorageError(
            "A study needs a plain SQLite file, because resuming it reads it again, got "
            f"{shown(parsed)}. Give a path such as sqlite:///runs/study.db."
        )
    return parsed


def is_sqlite(url: URL) -> bool:
    """Return whether `url` is SQLite's, through the driver that Python brings."""
    return url.drivername in {"sqlite", "sqlite+pysqlite"}


def file_url(file: Path) -> URL:
    """Return the URL of a SQLite file."""
    return URL.create("sqlite", database=str(file))


def optuna_url(url: URL) -> str:
    """Return `url` as Optuna wants it, password included."""
    # Optuna takes a URL for a template, and SQLAlchemy before 2.1 does not quote braces.
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def shown(url: URL) -> str:
    """Return `url` for a message: without its password, and without options, which may hold it."""
    return url.set(query={}).render_as_string(hide_password=True)


def scrubbed(error: BaseException, url: URL) -> str:
    """Return the message of `error` without the password in `url`."""
    message = str(error)
    for secret in (url.password, *url.query.values()):
        if isinstance(secret, str) and secret:
            message = message.replace(secret, "***")
    return message
