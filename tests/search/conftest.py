"""Studies on real SQLite files and PostgreSQL servers, and real processes to share them with."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from postgres import Server

from sculpt.storage.study_storage import open_storage
from sculpt.storage.trials import Trials

GRACE_SECONDS = 2
PATIENCE_SECONDS = 300  # only a hang is ever cut off by it

Start = Callable[..., subprocess.Popen[str]]


def wait_for(happened: Callable[[], object]) -> None:
    """Wait for something that comes about by itself, mostly without looking, which costs those
    that are waited for time."""
    looked = time.monotonic()
    deadline = looked + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(max(0.02, 2 * (time.monotonic() - looked)))
        looked = time.monotonic()


@pytest.fixture
def wait_until():
    """Return the function that waits until something has happened."""
    return wait_for


@pytest.fixture(scope="session")
def server():
    """Return a PostgreSQL server; a test that stops it starts it again."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def database(server):
    """Return the name of a database on `server` that is the test's alone."""
    name = server.make_database()
    yield name
    server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(server, database):
    """Return the URL of a PostgreSQL database that is the test's alone."""
    return server.url(database)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def storage_url(request, tmp_path):
    """Return where the workers find their study: on either engine."""
    if request.param == "sqlite":
        return f"{tmp_path}/study.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def storage(storage_url):
    """Return the storage that the workers use, too."""
    storage = open_storage(storage_url, create=True, grace_seconds=GRACE_SECONDS)
    yield storage
    storage.close()


@pytest.fixture
def study(storage):
    """Return the study that the workers use, too."""
    return optuna.create_study(study_name="s", storage=storage, load_if_exists=True)


@pytest.fixture
def trials(study, storage):
    """Return the trials that the workers run, too."""
    return Trials(study, storage)


@pytest.fixture
def start(tmp_path, storage_url):
    """Start processes in a role of storage_worker.py; they wait for the file `go`."""
    (tmp_path / "url").write_text(storage_url)
    started: list[subprocess.Popen[str]] = []

    def start_one(*arguments: object) -> subprocess.Popen[str]:
        role, *rest = map(str, arguments)
        script = str(Path(__file__).with_name("storage_worker.py"))
        command = [sys.executable, script, role, str(tmp_path), *rest]
        started.append(subprocess.Popen(command, text=True, stderr=subprocess.PIPE))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(tmp_path, start):
    """Run some processes of one role, all let loose at once; return their exit codes."""

    def run_all(number: int, *arguments: object) -> list[int]:
        processes = [start(*arguments) for _ in range(number)]
        wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == number)
        (tmp_path / "go").touch()
        for process in processes:
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)
            assert "Traceback" not in errors, errors
        return [process.returncode for process in processes]

    return run_all
