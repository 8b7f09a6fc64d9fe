"""Opening a study's storage, and sharing it between processes."""

import os
import pickle
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from outcomes import run_one
from sqlalchemy import text

from sculpt.errors import StorageError
from sculpt.storage.study_storage import open_storage
from sculpt.storage.trials import ClaimedTrial, Trials

Run = Callable[..., list[int]]


def executions(folder: Path) -> list[int]:
    return sorted(int(line) for line in (folder / "log").read_text().split())


def sql(file: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement).fetchall()


# --- opening ---------------------------------------------------------------------------------


def test_a_new_file_is_wal_and_its_folders_are_made(tmp_path):
    file = tmp_path / "a" / "b" / "study.db"
    open_storage(f"sqlite:///{file}", create=True).close()
    assert sql(file, "PRAGMA journal_mode") == [("wal",)]
    assert {path.name for path in file.parent.iterdir()} == {"study.db", "study.db.lock"}


def test_heartbeats_are_six_to_a_grace_period(tmp_path):
    with closing(open_storage(f"{tmp_path}/s.db", create=True, grace_seconds=60)) as storage:
        assert storage.heartbeat_seconds == 10
        storage.allow_silence(2.5)
        assert storage.heartbeat_seconds == 1


@pytest.mark.parametrize("name", ["plain.db", "a b.db", "{x}.db", "100%25.db", "w?y#z.db"])
def test_a_bare_path_is_that_very_file(tmp_path, name):
    with closing(open_storage(f"{tmp_path}/{name}", create=True)) as storage:
        optuna.create_study(study_name="s", storage=storage)
    assert sql(tmp_path / name, "SELECT study_name FROM studies") == [("s",)]


def test_a_relative_path_stays_where_it_was_opened(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with closing(open_storage("s.db", create=True)) as storage:
        monkeypatch.chdir(tmp_path / "elsewhere")
        optuna.create_study(study_name="s", storage=storage)
    assert sql(tmp_path / "s.db", "SELECT study_name FROM studies") == [("s",)]


def test_an_absent_file_is_not_made_for_a_reader(tmp_path):
    with pytest.raises(StorageError, match="Run the study first"):
        open_storage(f"{tmp_path}/runs/study.db", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [".new", ".new-wal", "-wal"])
def test_an_empty_file_and_what_others_left_are_no_obstacle(tmp_path, left):
    file = tmp_path / "study.db"
    file.touch()
    with closing(sqlite3.connect(tmp_path / "deleted.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE patients (name TEXT)")
        wal = (tmp_path / "deleted.db-wal").read_bytes()
    (tmp_path / f"study.db{left}").write_bytes(wal)
    with pytest.raises(StorageError, match="Run the study first"):
        open_storage(str(file), create=False)
    with closing(open_storage(str(file), create=True)) as storage:
        optuna.create_study(study_name="s", storage=storage)
    with closing(open_storage(str(file), create=False)) as storage:
        assert optuna.get_all_study_names(storage) == ["s"]


# --- refusing --------------------------------------------------------------------------------


def make_text(file: Path) -> None:
    file.write_text("val_error,macs\n" * 1000)


def make_foreign(file: Path) -> None:
    sql(file, "CREATE TABLE studies (patient TEXT)")


def make_tableless(file: Path) -> None:
    sql(file, "PRAGMA user_version = 1")


def make_storage(file: Path) -> None:
    with closing(open_storage(str(file), create=True)) as storage:
        optuna.create_study(storage=storage)


def make_truncated(file: Path) -> None:
    make_storage(file)
    os.truncate(file, file.stat().st_size // 2)


def make_stub(file: Path) -> None:
    make_storage(file)
    os.truncate(file, 60)


def make_newer(file: Path) -> None:
    make_storage(file)
    sql(file, "UPDATE alembic_version SET version_num = 'v99.0.0.a'")


def make_older(file: Path) -> None:
    make_storage(file)
    sql(file, "UPDATE alembic_version SET version_num = 'v3.0.0.d'")


def make_versionless(file: Path) -> None:
    make_storage(file)
    sql(file, "DELETE FROM alembic_version")


def make_columnless(file: Path) -> None:
    for table in ("alembic_version", "studies", "trials", "version_info"):
        sql(file, f"CREATE TABLE {table} (patient TEXT)")


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (make_text, "must be a readable SQLite database"),
        (make_truncated, "must be a readable SQLite database"),
        (make_stub, "must be a readable SQLite database"),
        (make_foreign, "must be empty or Optuna's.*the tables studies"),
        (make_tableless, "of Optuna's.*no tables"),
        (make_newer, "installed Optuna.*updating optuna"),
        (make_older, "installed Optuna.*storage upgrade"),
        (make_versionless, "Optuna.*does not say its version"),
        (make_columnless, "Optuna.*no such column"),
    ],
)
def test_a_bad_file_is_refused_and_left_as_it_was(tmp_path, make, rule, create):
    file = tmp_path / "study.db"
    make(file)
    before = file.read_bytes()
    with pytest.raises(StorageError, match=rule) as raised:
        open_storage(str(file), create=create)
    assert str(file) in str(raised.value)
    assert raised.value.exit_code == 2
    assert file.read_bytes() == before


def make_loop(file: Path) -> None:
    file.symlink_to(file)


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def make_device(file: Path) -> None:
    file.symlink_to("/dev/null")


def make_lock_folder(file: Path) -> None:
    make_storage(file)
    file.with_name("study.db.lock").unlink()
    file.with_name("study.db.lock").mkdir()


def make_tables_lost(file: Path) -> None:
    make_storage(file)
    sql(file, "DROP TABLE trial_params")


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (make_loop, "Symlink loop"),
        (make_pipe, "it is no file"),
        (make_device, "it is no file"),
        (make_lock_folder, "study.db.lock is a folder"),
        (make_tables_lost, "must be whole, but .* has no tables trial_params"),
    ],
)
def test_what_no_study_can_be_kept_in_is_refused(tmp_path, make, rule):
    make(tmp_path / "study.db")
    with pytest.raises(StorageError, match=rule) as raised:
        open_storage(f"{tmp_path}/study.db", create=True)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
@pytest.mark.parametrize("create", [True, False])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name, create):
    with pytest.raises(StorageError, match=r"null byte|name too long") as raised:
        open_storage(f"{tmp_path}/{name}.db", create=create)
    assert raised.value.exit_code == 2


def test_a_folder_that_cannot_be_written_is_refused_to_workers(tmp_path):
    make_storage(tmp_path / "study.db")
    (tmp_path / "study.db.lock").unlink()
    tmp_path.chmod(0o555)
    with without_privileges(), pytest.raises(StorageError, match=r"its folder writable|readable"):
        open_storage(f"{tmp_path}/study.db", create=True)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "study.db").mkdir()
    with pytest.raises(StorageError, match="must be a readable SQLite database"):
        open_storage(f"{tmp_path}/study.db", create=True)
    assert list((tmp_path / "study.db").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="its folder writable"):
        open_storage(f"{tmp_path}/file/study.db", create=True)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything: become nobody for a moment."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder like Linux's /proc")
def test_a_folder_in_which_no_file_can_be_made_is_refused():
    # Even root cannot; waiting there for a lock would never end.
    with pytest.raises(StorageError, match=r"its folder writable, got /proc/study\.db"):
        open_storage("/proc/study.db", create=True)


def test_a_file_without_permission_is_refused(tmp_path):
    make_storage(tmp_path / "study.db")
    (tmp_path / "study.db").chmod(0)
    with without_privileges(), pytest.raises(StorageError, match=r"must be (a )?readable"):
        open_storage(f"{tmp_path}/study.db", create=False)


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "sqlite://x.db"],
)
def test_memory_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="a plain SQLite file"):
        open_storage(url, create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hunter2@host/name",
        "mysql://host/name?password=hunter2",
        "redis://:hunter2@host",
        "postgres://me:hunter2@host/name",
        "postgresql://me:hunter2@host:port/name",
        "postgresql:/me:hunter2@host/name",
        "sqlite+aiosqlite:///x.db?key=hunter2",
        "study.sqlite",
        "",
    ],
)
def test_other_places_are_refused_without_showing_a_password(url):
    with pytest.raises(StorageError, match="Accepted are sqlite:///PATH") as raised:
        open_storage(url, create=True)
    assert "hunter2" not in str(raised.value)


def test_a_missing_postgres_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError, match=r"sculpt\[postgres\]") as raised:
        open_storage("postgresql+psycopg://me:hunter2@host/name", create=True)
    assert "host" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("grace", [0.0, 1.9, float("inf"), float("nan")])
def test_a_grace_that_heartbeats_cannot_keep_is_refused(tmp_path, grace):
    with pytest.raises(StorageError, match="at least 2"):
        open_storage(f"{tmp_path}/study.db", create=True, grace_seconds=grace)
    assert list(tmp_path.iterdir()) == []


# --- sharing ---------------------------------------------------------------------------------


def test_the_lock_is_re_entrant_and_keeps_out_threads_and_other_storages(storage, storage_url):
    entered: dict[str, threading.Event] = {}

    def enter(name: str, lock: AbstractContextManager[object]) -> None:
        with lock:
            entered[name].set()

    with closing(open_storage(storage_url, create=False)) as other:
        threads = []
        with storage.lock(), storage.lock():
            for name, lock in (("thread", storage.lock()), ("storage", other.lock())):
                entered[name] = threading.Event()
                threads.append(threading.Thread(target=enter, args=(name, lock)))
                threads[-1].start()
                assert not entered[name].wait(0.2)
        assert all(event.wait(60) for event in entered.values())
        for thread in threads:
            thread.join()


def test_a_study_survives_pickling(study, storage):
    copy, kept = pickle.loads(pickle.dumps((study, storage)))
    trials = Trials(copy, kept)
    assert run_one(trials, lambda _: [1.0], limit=1)
    assert trials.claim(1) is None
    kept.close()
    assert len(study.trials) == 1


@pytest.mark.slow
def test_enqueued_trials_run_exactly_once(study, run, tmp_path):
    for i in range(16):
        study.enqueue_trial({"x": i / 16})
    assert run(4, "work", 16) == [0] * 4
    assert executions(tmp_path) == list(range(16))
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 16
    assert [trial.value for trial in trials] == [i / 16 for i in range(16)]


@pytest.mark.slow
def test_processes_that_start_at_once_make_exactly_the_limit(run, tmp_path, storage_url):
    assert run(4, "work", 12) == [0] * 4  # the tables and the study are theirs to make, too
    assert executions(tmp_path) == list(range(12))
    with closing(open_storage(storage_url, create=False)) as storage:
        trials = optuna.load_study(study_name="s", storage=storage).trials
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def draw_x(claimed: ClaimedTrial) -> list[float]:
    return [claimed.trial.suggest_float("x", 0, 1)]


def test_a_full_study_creates_nothing_but_takes_enqueued_trials(trials):
    assert run_one(trials, lambda _: [1.0], limit=2)
    assert run_one(trials, lambda _: [1.0], limit=2)
    assert trials.claim(2) is None
    assert len(trials.read()) == 2
    trials.study.enqueue_trial({"x": 0.5})
    assert run_one(trials, draw_x, limit=2)
    assert [trial.value for trial in trials.read()] == [1, 1, 0.5]


def test_a_limit_holds_for_its_study_alone(trials, storage):
    other = Trials(optuna.create_study(study_name="other", storage=storage), storage)
    for _ in range(3):
        assert run_one(other, lambda _: [1.0], limit=3)
    assert trials.claim(0) is None
    assert run_one(trials, lambda _: [1.0], limit=1)
    assert (len(trials.read()), len(other.read())) == (1, 3)


def test_a_fresh_trial_runs_with_a_heartbeat(trials, storage):
    claimed = trials.claim(1)
    assert claimed
    trial = storage.get_trial(claimed.trial_id)
    assert trial.state is TrialState.RUNNING
    assert trial.datetime_start is not None
    with storage.engine.connect() as connection:
        beats = connection.execute(text("SELECT trial_id FROM trial_heartbeats")).all()
    assert beats == [(claimed.trial_id,)]


def test_a_claim_is_granted_once(study, storage):
    study.enqueue_trial({"x": 0.5})
    assert storage.set_trial_state_values(1, TrialState.RUNNING)
    assert not storage.set_trial_state_values(1, TrialState.RUNNING)
    assert storage.set_trial_state_values(1, TrialState.COMPLETE, [0.0])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(1, TrialState.RUNNING)
