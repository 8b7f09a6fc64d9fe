"""A study on a PostgreSQL server: its lock, its restarts, and what is refused."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from postgres import Server
from sqlalchemy import make_url, text

from sculpt.errors import StorageError
from sculpt.storage import postgres as server_module
from sculpt.storage import trials as trials_module
from sculpt.storage.failures import LostLockError
from sculpt.storage.postgres import PostgresDatabase
from sculpt.storage.study_storage import StudyStorage, open_storage
from sculpt.storage.trials import ClaimedTrial, Trials, count_originals
from studies import write_study

WaitUntil = Callable[[Callable[[], object]], None]
PASSWORD = "hunter2"


@pytest.fixture
def storage(postgres_url: str) -> Iterator[StudyStorage]:
    with closing(open_storage(postgres_url, create=True, grace_seconds=2)) as storage:
        yield storage


@pytest.fixture
def locks(storage: StudyStorage) -> tuple[PostgresDatabase, PostgresDatabase]:
    """Return the lock of one database as two machines have it."""
    one, other = (PostgresDatabase(make_url(storage._tables.url)) for _ in range(2))
    return one, other


def cut(server: Server, database: str) -> None:
    """Cut the connection of whoever holds the lock."""
    rows = server.sql(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        f"WHERE locktype = 'advisory' AND granted AND datname = '{database}'"
    )
    assert rows == [(True,)]


def in_thread(lock: PostgresDatabase) -> tuple[threading.Thread, threading.Event]:
    """Take and leave the lock in a thread; the event says that it was taken."""
    taken = threading.Event()

    def take() -> None:
        with lock.held():
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    return thread, taken


# --- the lock --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_holder_loses_the_lock(
    start: Callable[..., Any], tmp_path: Path, storage_url: str, wait_until: WaitUntil
) -> None:
    with closing(open_storage(storage_url, create=True)) as storage:
        holder = start("hold")
        (tmp_path / "go").touch()
        wait_until((tmp_path / "held").exists)
        entered = threading.Event()

        def enter() -> None:
            with storage.lock():
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.5)
        holder.kill()
        assert entered.wait(60)
        thread.join()


def test_the_lock_is_taken_again_after_a_restart(
    server: Server, locks: tuple[PostgresDatabase, PostgresDatabase]
) -> None:
    ours, theirs = locks
    with ours.held():
        ours.check()
        thread, taken = in_thread(theirs)
        assert not taken.wait(0.5)
        server.stop()
        server.start()
        assert taken.wait(60)
        thread.join()
        for _ in range(2):  # it is not taken again in silence
            with pytest.raises(LostLockError):
                ours.check()
    with ours.held():
        ours.check()


def test_ctrl_c_ends_waiting_for_the_lock(
    server: Server,
    database: str,
    locks: tuple[PostgresDatabase, PostgresDatabase],
    wait_until: WaitUntil,
) -> None:
    ours, theirs = locks
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    def interrupt() -> None:
        wait_until(lambda: server.sql(waiting, database))
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    # What a shell starts in the background ignores Ctrl-C, and Python then does so, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ours.held():
            interrupting.start()
            with pytest.raises(KeyboardInterrupt), theirs.held():
                pytest.fail("two hold the lock")
            interrupting.join()
            wait_until(lambda: not server.sql(waiting, database))
    finally:
        signal.signal(signal.SIGINT, before)
    with theirs.held():
        theirs.check()


def test_a_lock_that_was_lost_unnoticed_is_left_in_silence(
    server: Server, database: str, locks: tuple[PostgresDatabase, PostgresDatabase]
) -> None:
    for lock in locks:
        with lock.held():
            cut(server, database)


def test_who_lost_the_lock_creates_nothing(
    server: Server,
    database: str,
    storage: StudyStorage,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = Trials(optuna.create_study(study_name="s", storage=storage), storage)

    def lose_the_lock_to_another(found: Any) -> int:
        count = count_originals(found)
        monkeypatch.setattr(trials_module, "count_originals", count_originals)
        cut(server, database)
        with closing(open_storage(postgres_url, create=False)) as other:
            assert Trials(optuna.load_study(study_name="s", storage=other), other).claim(1)
        return count

    monkeypatch.setattr(trials_module, "count_originals", lose_the_lock_to_another)
    assert trials.claim(1) is None
    assert len(trials.read()) == 1


def test_the_next_holder_waits_for_what_the_last_one_is_creating(
    server: Server,
    database: str,
    storage: StudyStorage,
    locks: tuple[PostgresDatabase, PostgresDatabase],
) -> None:
    ours, theirs = locks
    study = optuna.create_study(study_name="s", storage=storage)
    ours.watch(storage.engine)
    insert = "INSERT INTO trials (number, study_id, state) VALUES (0, 1, 'WAITING')"
    with ours.held(), storage.engine.connect() as connection:
        connection.exec_driver_sql(insert)
        server.sql(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks WHERE locktype = 'advisory' "
            "AND mode = 'ExclusiveLock' AND granted"
        )
        thread, taken = in_thread(theirs)
        assert not taken.wait(0.5)
        connection.commit()
        assert taken.wait(60)
    thread.join()
    assert len(study.trials) == 1


def test_a_draw_that_was_not_locked_all_the_while_is_known(
    server: Server, database: str, storage: StudyStorage
) -> None:
    storage.check_lock()  # nothing is lost by one who has not taken it
    with storage.lock():
        storage.check_lock()
        cut(server, database)
        with pytest.raises(LostLockError):
            storage.check_lock()


# --- restarts --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_in_the_middle_of_a_trial_loses_nothing(
    server: Server, storage: StudyStorage, wait_until: WaitUntil, mode: str
) -> None:
    trials = Trials(optuna.create_study(storage=storage, study_name="s"), storage)

    def last_heartbeat() -> Any:
        with storage.engine.connect() as connection:
            return connection.execute(text("SELECT max(heartbeat) FROM trial_heartbeats")).scalar()

    def objective(claimed: ClaimedTrial) -> list[float]:
        if claimed.trial.number == 1:
            server.stop(mode)
            starting = threading.Timer(1.0, server.start)
            starting.start()
            claimed.trial.report(0.5, 1)  # while it is away
            starting.join()
            before = last_heartbeat()
            wait_until(lambda: last_heartbeat() > before)
        return [claimed.trial.suggest_float("x", 0, 1)]

    while claimed := trials.claim(3):
        trials.run(claimed, objective)
        trials.requeue()
    assert trials.counts()["complete"] == 3
    assert [trial.state for trial in trials.read()] == [TrialState.COMPLETE] * 3
    assert trials.read()[1].intermediate_values == {1: 0.5}


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_and_the_next_goes_on(
    server: Server,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sculpt_command: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sculpt.storage.failures.Patience.__init__.__defaults__", (1.0,))
    path = write_study(tmp_path, storage=postgres_url, search__trials=3, search__replicates=1)
    from sculpt.search.workers.worker import Worker

    run = Worker._run_seeds

    def stop_first(self: Worker, setup: Any, *rest: Any) -> Any:
        if setup.label != "base":
            monkeypatch.setattr(Worker, "_run_seeds", run)
            server.stop()
        return run(self, setup, *rest)

    monkeypatch.setattr(Worker, "_run_seeds", stop_first)
    code, _, error = sculpt_command("run", path)
    server.start()
    assert code == 1
    assert error.count("sculpt: ") == 1
    assert "must stay reachable and writable" in error
    assert "the same command goes on" in error
    assert "Traceback" not in error

    code, _, error = sculpt_command("run", path, "--json")
    assert code == 0, error
    import sculpt

    results = sculpt.open_results(path)
    tally = results.tally()
    assert (tally["complete"], tally["interrupted"], tally["failed"]) == (3, 1, 0)
    results._store.storage.close()


# --- opening ---------------------------------------------------------------------------------


@pytest.fixture
def locked_url(server: Server, database: str) -> Iterator[str]:
    """Return the URL, without a password, of a database whose owner needs one."""
    server.sql(f"CREATE ROLE locked LOGIN PASSWORD '{PASSWORD}'")
    server.sql(f"ALTER DATABASE {database} OWNER TO locked")
    yield server.url(database, "locked")
    server.sql(f"ALTER DATABASE {database} OWNER TO postgres")
    server.sql("DROP OWNED BY locked CASCADE", database)
    server.sql("DROP ROLE locked")


def with_password(url: str, password: str) -> str:
    return url.replace("locked@", f"locked:{password}@")


def refusal(sculpt_command: Callable[..., tuple[int, str, str]], *arguments: object) -> str:
    """Run a command that is refused; return its one message."""
    code, out, error = sculpt_command(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith("sculpt: ")
    assert error.count("\n") == 1, error
    return error


def test_a_wrong_password_is_refused_at_once(
    locked_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sculpt_command: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: pytest.fail("it is tried again"))
    path = write_study(tmp_path)
    for url in (with_password(locked_url, "wrong-one"), locked_url):
        error = refusal(sculpt_command, "run", path, "--storage", url)
        assert "PGPASSWORD" in error
        assert "~/.pgpass" in error
        assert "wrong-one" not in error


def test_a_password_may_stay_outside_of_the_url(
    locked_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    open_storage(locked_url, create=True).close()


@pytest.mark.slow
def test_a_password_is_written_nowhere(
    server: Server,
    database: str,
    locked_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sculpt_command: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path, search__trials=2, search__replicates=1)
    url = with_password(locked_url, PASSWORD)
    for command in ("run", "status", "rank", "report", "bench"):
        extra = ["--seconds", 0.01, "--repeats", 1] if command == "bench" else []
        code, out, error = sculpt_command(command, path, "--storage", url, *extra)
        assert code == 0, error
        assert PASSWORD not in out + error
    code, out, error = sculpt_command("show", path, "base", "--storage", url, "--json")
    assert code == 0
    assert PASSWORD not in out + error
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 4
    assert not [file for file in files if PASSWORD.encode() in file.read_bytes()]
    tables = server.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database)
    rows = [server.sql(f"SELECT t::text FROM {table} t", database) for (table,) in tables]
    assert "locked@/" in str(rows)  # where it is kept is written down
    assert PASSWORD not in str(rows)


def test_an_unreachable_server_is_refused_soon(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sculpt_command: Callable[..., tuple[int, str, str]],
) -> None:
    assert server_module.OPENING_SECONDS < 10
    monkeypatch.setattr(server_module, "OPENING_SECONDS", 0.2)
    path = write_study(tmp_path)
    for host in ("127.0.0.1:1", "no-such-host.invalid"):
        url = f"postgresql://me:{PASSWORD}@{host}/name"
        for command in ("run", "status"):
            error = refusal(sculpt_command, command, path, "--storage", url)
            assert "must be reachable" in error
            assert "start the server" in error
            assert PASSWORD not in error


def test_a_server_that_is_just_starting_is_waited_for(server: Server, postgres_url: str) -> None:
    server.stop()
    starting = threading.Timer(0.5, server.start)
    starting.start()
    try:
        open_storage(postgres_url, create=True).close()
    finally:
        starting.join()


def test_a_database_that_does_not_exist_is_named(
    server: Server, tmp_path: Path, sculpt_command: Callable[..., tuple[int, str, str]]
) -> None:
    path = write_study(tmp_path)
    error = refusal(sculpt_command, "run", path, "--storage", server.url("nowhere"))
    assert "createdb" in error


def make_foreign(server: Server, database: str) -> None:
    server.sql("CREATE TABLE patients (name text)", database)


def make_half(server: Server, database: str) -> None:
    server.sql("CREATE TABLE studies (patient text)", database)


def make_study(server: Server, database: str) -> None:
    with closing(open_storage(server.url(database), create=True)) as storage:
        optuna.create_study(storage=storage)


def make_newer(server: Server, database: str) -> None:
    make_study(server, database)
    server.sql("UPDATE alembic_version SET version_num = 'v99.0.0.a'", database)


def make_older(server: Server, database: str) -> None:
    make_study(server, database)
    server.sql("UPDATE alembic_version SET version_num = 'v3.0.0.d'", database)


def make_columnless(server: Server, database: str) -> None:
    for table in ("alembic_version", "studies", "trials", "version_info"):
        server.sql(f"CREATE TABLE {table} (patient text)", database)


@pytest.mark.parametrize("command", ["run", "status"])
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (make_foreign, "must be empty or Optuna's, got .* with the tables patients"),
        (make_half, "must be empty or Optuna's, got .* with the tables studies"),
        (make_newer, "schema of the installed Optuna.*updating optuna"),
        (make_older, "schema of the installed Optuna.*storage upgrade"),
        (make_columnless, "must be Optuna's, and writable"),
    ],
)
def test_another_database_is_refused_and_left_as_it_was(
    server: Server,
    database: str,
    tmp_path: Path,
    sculpt_command: Callable[..., tuple[int, str, str]],
    make: Callable[[Server, str], None],
    rule: str,
    command: str,
) -> None:
    make(server, database)
    listing = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    before = server.sql(listing, database)
    path = write_study(tmp_path)
    error = refusal(sculpt_command, command, path, "--storage", server.url(database))
    assert re.search(rule, error), error
    assert server.sql(listing, database) == before


def test_nothing_is_made_for_a_reader(server: Server, database: str, postgres_url: str) -> None:
    with pytest.raises(StorageError, match="Run the study first"):
        open_storage(postgres_url, create=False)
    assert server.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", database) == []
