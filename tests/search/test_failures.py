"""A disk that is full or read-only, and network file systems: one message, and nothing lost."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

import sculpt
from sculpt.errors import StorageError
from sculpt.storage import sqlite_file
from sculpt.storage.failures import LostStorageError, failure_in, storage_failure
from sculpt.storage.study_storage import open_storage
from studies import write_study

Command = Callable[..., tuple[int, str, str]]


@contextmanager
def on_every_connection(statement: str) -> Iterator[None]:
    """Execute a statement on every connection to a SQLite file that is made meanwhile."""

    def execute(connection: Any, _: Any) -> None:
        connection.execute(statement)

    event.listen(Engine, "connect", execute)
    try:
        yield
    finally:
        event.remove(Engine, "connect", execute)


def check_failed_and_goes_on(
    sculpt_command: Command, path: Path, statement: str, words: str
) -> None:
    """Check that a study ends with one message, and is finished by the same command."""
    with on_every_connection(statement):
        code, _, error = sculpt_command("run", path)
    assert code == 1, error
    assert error.count("sculpt: ") == 1
    assert words in error
    assert "the same command goes on" in error
    assert "Traceback" not in error
    code, _, error = sculpt_command("run", path, "--json")
    assert code == 0, error
    results = sculpt.open_results(path)
    tally = results.tally()
    assert (tally["complete"], tally["failed"]) == (4, 0)
    assert tally["running"] == tally["queued"] == 0
    results._store.storage.close()


@pytest.mark.slow
@pytest.mark.parametrize("pages", [0, 1])
def test_a_full_disk_ends_the_run_and_the_next_goes_on(tmp_path, sculpt_command, pages):
    """Wherever it gets full: the more room, the later."""
    path = write_study(tmp_path, search__replicates=1)
    open_storage(str(tmp_path / "tiny.db"), create=True).close()
    with closing(sqlite3.connect(tmp_path / "tiny.db")) as connection:
        used = connection.execute("PRAGMA page_count").fetchone()[0]
    full = f"PRAGMA max_page_count = {used + pages}"
    check_failed_and_goes_on(sculpt_command, path, full, "database or disk is full")


@pytest.mark.slow
def test_a_read_only_file_ends_the_run_and_the_next_goes_on(tmp_path, sculpt_command):
    path = write_study(tmp_path, search__replicates=1)
    open_storage(str(tmp_path / "tiny.db"), create=True).close()
    check_failed_and_goes_on(
        sculpt_command, path, "PRAGMA query_only = ON", "attempt to write a readonly database"
    )


@pytest.mark.slow
def test_a_disk_that_is_full_for_other_files_is_no_failure_of_a_trial(
    tmp_path, sculpt_command, monkeypatch
):
    path = write_study(tmp_path, search__replicates=1)

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("sculpt.search.workers.worker.keep", no_room)
        code, _, error = sculpt_command("run", path)
    assert code == 1
    assert "No space left on device" in error
    code, _, error = sculpt_command("run", path, "--json")
    assert code == 0, error


def test_a_failure_is_found_behind_what_hides_it():
    lost = LostStorageError("away")

    def hide() -> None:
        try:
            raise lost
        finally:
            raise AssertionError("Should not reach.")  # as Optuna does

    with pytest.raises(AssertionError) as raised:
        hide()
    assert storage_failure(raised.value) is lost
    assert storage_failure(ValueError("a trial's own")) is None
    assert storage_failure(None) is None


class OperationalError(Exception):
    """Passes for a driver's error."""

    def __init__(self, message: str, sqlstate: str | None = None):
        super().__init__(message)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("message", "state", "passes"),
    [
        ("connection failed: Connection refused", None, True),
        ("connection timeout expired", None, True),
        ("FATAL:  the database system is starting up", None, True),
        ("FATAL:  sorry, too many clients already", None, True),
        ("server closed the connection unexpectedly", None, True),
        ("SSL connection has been closed unexpectedly", None, True),
        ("terminating connection due to administrator command", "57P01", True),
        ("deadlock detected", "40P01", True),
        ('FATAL:  password authentication failed for user "me"', None, False),
        ('FATAL:  database "name" does not exist', None, False),
        ("fe_sendauth: no password supplied", None, False),
        ("could not extend file: No space left on device", "53100", False),
        ("cannot execute INSERT in a read-only transaction", "25006", False),
        ("value too long for type character varying(512)", "22001", None),
        ('relation "trials" does not exist', "42P01", None),
    ],
)
def test_what_a_server_says(message, state, passes):
    failure = failure_in(OperationalError(message, state), "postgresql://host/name")
    assert (failure.passes if failure else None) is passes
    if failure:
        assert message.split()[-1] in str(failure)
        assert "postgresql://host/name" in str(failure)


# --- network file systems --------------------------------------------------------------------

MOUNTS = """\
overlay / overlay rw,lowerdir=/a:/b 0 0
server:/home {folder} nfs4 rw,vers=4.2 0 0
/dev/sda1 {folder}/disk ext4 rw 0 0
//nas/my\\040share {folder}/my\\040share cifs rw 0 0
me@host:/ {folder}/ssh fuse.sshfs rw 0 0
sandbox {folder}/sandbox 9p rw 0 0
hidden {folder}/over nfs rw 0 0
tmpfs {folder}/over tmpfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Pretend that file systems are mounted in a folder, and return it."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "mounts").write_text(MOUNTS.format(folder=folder))
    monkeypatch.setattr(sqlite_file, "MOUNTS", tmp_path / "mounts")
    return folder


@pytest.mark.parametrize(
    ("place", "mount", "kind"),
    [
        (".", ".", "nfs4"),
        ("runs", ".", "nfs4"),
        ("diskette", ".", "nfs4"),
        ("my share/a", "my share", "cifs"),
        ("ssh", "ssh", "fuse.sshfs"),
    ],
)
def test_a_network_file_system_is_refused(mounts, sculpt_command, place, mount, kind):
    file = mounts / place / "study.db"
    for create in (True, False):
        with pytest.raises(StorageError, match="do not work over a network") as raised:
            open_storage(str(file), create=create)
        assert f"{file}: {mounts / mount} is of type {kind}" in str(raised.value)
        assert "postgresql://" in str(raised.value)
    assert list(mounts.iterdir()) == []
    code, _, error = sculpt_command("status", "s", "--storage", file)
    assert code == 2
    assert kind in error


def test_a_study_that_lies_there_already_is_refused(mounts, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "MOUNTS", Path("/nonexistent"))  # as where there is no /proc
        open_storage(str(mounts / "study.db"), create=True).close()
    with pytest.raises(StorageError, match="nfs4"):
        open_storage(str(mounts / "study.db"), create=False)


@pytest.mark.parametrize("place", ["disk", "sandbox", "over", "disk/deep/er"])
def test_local_file_systems_are_used(mounts, place):
    open_storage(str(mounts / place / "study.db"), create=True).close()


def test_a_link_to_a_network_file_system_is_followed(mounts, tmp_path):
    (tmp_path / "link").symlink_to(mounts)
    with pytest.raises(StorageError, match="nfs4"):
        open_storage(str(tmp_path / "link" / "study.db"), create=True)
