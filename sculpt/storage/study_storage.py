"""The storage of a study: Optuna's RDBStorage, made safe for many processes and machines."""

import abc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sculpt.errors import StorageError
from sculpt.storage.attributes import PROCESS
from sculpt.storage.failures import LostClaimError, LostStorageError, Patience, failure_in
from sculpt.storage.optuna_names import cached, rdb_storage, stale_trial_ids, table_names
from sculpt.storage.postgres import OPENING_SECONDS, PostgresDatabase, scrubbed, shown
from sculpt.storage.process_identity import has_ended
from sculpt.storage.sqlite_file import SqliteFile

P = ParamSpec("P")
T = TypeVar("T")

TABLES = frozenset({"studies", "trials", "version_info"})
"""Optuna's tables; not `alembic_version`, because other programs have it, too."""

NOT_REPEATED = ("create_new_study", "delete_study", "create_new_trial")
"""Methods of a storage that make something or take it away. After a lost answer nobody knows
whether it is there, so the caller starts over by looking. All others may be called twice: they
read, or are idempotent (Optuna ignores a parameter written before)."""


class DelegatingStorage(BaseStorage):
    """A storage that calls the backend's method of the same name, unless a subclass overrides it.

    Type checkers do not see methods made in a loop, and take subclasses for abstract.
    """

    def __init__(self, backend: BaseStorage) -> None:
        self._backend = backend

    def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return method(*args, **kwargs)


def _delegate(name: str) -> Callable[..., object]:
    @wraps(getattr(BaseStorage, name), updated=())  # or it would be abstract, too
    def call(self: DelegatingStorage, *args: object, **kwargs: object) -> object:
        return self._call(getattr(self._backend, name), *args, **kwargs)

    return call


# The last one is not abstract, but would read all trials.
for _name in (*BaseStorage.__abstractmethods__, "get_trial_id_from_study_id_trial_number"):
    setattr(DelegatingStorage, _name, _delegate(_name))
abc.update_abstractmethods(DelegatingStorage)  # type: ignore[type-abstract]


class StudyStorage(DelegatingStorage):
    """An RDBStorage for many workers: no trial is claimed twice, and a server may be away.

    `open_storage` opens one, and checks everything first.

    Attributes:
        patience: Repeats what may be repeated while a server is away; see `Patience`.
        heartbeat_seconds: Between two signs of life of a running trial; six to a grace period.
    """

    def __init__(self, database: SqliteFile | PostgresDatabase, grace_seconds: float) -> None:
        self.patience = Patience()
        self._database, self._only_queued = database, False
        self._tables = rdb_storage(database.url, database.options)
        self.allow_silence(grace_seconds)
        super().__init__(cached(self._tables))
        database.watch(self.engine)

    def allow_silence(self, grace_seconds: float) -> None:
        """Let a running trial count as dead once its worker has been silent for so long."""
        self.heartbeat_seconds = max(1, int(grace_seconds / 6))
        self._tables.grace_period = math.ceil(grace_seconds)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._database.watch(self.engine)  # which is a new one

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, for statements that Optuna has no method for."""
        return self._tables.engine

    def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if method.__name__ in NOT_REPEATED:
            return method(*args, **kwargs)
        return self.patience(method, *args, **kwargs)

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock under which trials are claimed, drawn and requeued; see its database."""
        return self._database.held()

    def check_lock(self) -> None:
        """Raise a `LostLockError` if this thread has taken a server's lock and lost it."""
        self._database.check()

    @contextmanager
    def only_queued(self) -> Iterator[None]:
        """Create no running trial in this context, which needs the lock.

        Optuna makes a new trial where it finds none queued. Where there may be no new one, a
        queued one whose claim was not answered must not become two.
        """
        self._only_queued = True
        try:
            yield
        finally:
            self._only_queued = False

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial; without a template it runs, with a heartbeat from the first moment on.

        LostClaimError means that it was queued, but nobody knows who runs it; look again.
        """
        if template_trial is not None:
            return self._backend.create_new_trial(study_id, template_trial)
        lost = LostClaimError("a queued trial was claimed by another process, or unanswered")
        if self._only_queued:
            raise lost
        # Queued first: killed here, it waits for the next claim, whereas a trial born RUNNING
        # would be without a heartbeat, and Optuna never calls such a trial stale.
        queued = create_trial(state=TrialState.WAITING)
        trial_id = self._backend.create_new_trial(study_id, queued)
        if not self.set_trial_state_values(trial_id, TrialState.RUNNING):
            raise lost
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a trial's state; UpdateFinishedTrialError if it is finished. Of all who ask for
        RUNNING, at most one is answered True."""
        tries = 0

        # A try may be written and only its answer lost. One that finished the trial is known by
        # what it wrote. One that claimed it is not: the next try is answered False, and nobody
        # runs the trial; but its heartbeat was written before, so it is stale soon, and retried.
        def set_once() -> bool:
            nonlocal tries
            tries += 1
            try:
                return self._backend.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                trial = self.get_trial(trial_id)
                written = trial.state is state and list(trial.values or ()) == list(values or ())
                if tries > 1 and written:
                    return True
                raise

        # Upstream relies on SELECT FOR UPDATE, which SQLite lacks: queued trials ran twice.
        with self.lock() if isinstance(self._database, SqliteFile) else nullcontext():
            if state is TrialState.RUNNING and self.get_trial(trial_id).state is TrialState.WAITING:
                self.patience(self._tables.record_heartbeat, trial_id)
            return self.patience(set_once)

    def record_heartbeat(self, trial_id: int) -> None:
        """Write a sign of life of a trial; a storage that cannot be written now is told later."""
        with suppress(LostStorageError):
            self.patience(self._tables.record_heartbeat, trial_id)

    def fail_silent(self, study_id: int, trials: Iterable[FrozenTrial]) -> bool:
        """Fail the running trials of a study whose workers have been silent for too long, or are
        known to have ended, because they ran on this machine; return whether there were any.

        `trials` are the study's, as they were just now.
        """
        silent = set(self.patience(stale_trial_ids, self._tables, study_id))
        for trial in trials:
            running = trial.state is TrialState.RUNNING
            if running and has_ended(str(trial.system_attrs.get(PROCESS))):
                silent.add(self.get_trial_id_from_study_id_trial_number(study_id, trial.number))
        for trial_id in sorted(silent):
            with suppress(UpdateFinishedTrialError):  # it has just ended, or others were faster
                self.set_trial_state_values(trial_id, TrialState.FAIL)
        return bool(silent)

    def close(self) -> None:
        """Close the database connections; using the storage again opens new ones."""
        self._tables.remove_session()
        self.engine.dispose()
        self._database.close()


class MemoryStorage(InMemoryStorage):
    """The storage of an archive's trials, which are only read."""

    def close(self) -> None:
        """Do nothing: there is no connection to end."""


def database_at(url: str) -> SqliteFile | PostgresDatabase:
    """Return the database at `url`: of a SQLite file (or its bare path, ending in .db), or
    PostgreSQL's; StorageError if it is neither, or its driver is not installed."""
    accepted = "Accepted are sqlite:///PATH, a path ending in .db, and postgresql://USER@HOST/NAME."
    if "://" not in url and url.endswith(".db"):
        return SqliteFile(Path(url))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What cannot be parsed may hold a password anywhere: show no more than the scheme.
        scheme = url.partition(":")[0]
        raise StorageError(f"A study cannot be kept at {scheme!r}... {accepted}") from None
    if parsed.get_backend_name() == "postgresql":
        # The driver that SQLAlchemy takes for a bare postgresql:// depends on its version.
        bare = parsed.drivername == "postgresql"
        return PostgresDatabase(parsed.set(drivername="postgresql+psycopg") if bare else parsed)
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StorageError(f"A study cannot be kept at {shown(parsed)}. {accepted}")
    path = parsed.database or ":memory:"
    if parsed.query or parsed.host or path.startswith((":memory:", "file:")):
        raise StorageError(
            "A study needs a plain SQLite file, because resuming it reads it again, got "
            f"{shown(parsed)}. Give a path such as sqlite:///runs/study.db."
        )
    return SqliteFile(Path(path))


def open_storage(url: str, *, create: bool, grace_seconds: float = 60.0) -> StudyStorage:
    """Open the storage at `url`; its `close()` ends its connections.

    Args:
        url: See `database_at`.
        create: Make the SQLite file and its folders, or the tables, when they are absent.
        grace_seconds: Silence after which a running trial counts as dead; at least 2, because
            heartbeats are whole seconds apart.

    Raises:
        StorageError: There is nothing at `url` while `create` is false, or no Optuna storage of
            this version. A file or database that is refused is left as it was.
    """
    if not 2 <= grace_seconds < math.inf:
        raise StorageError(
            f"grace_seconds must be finite and at least 2, got {grace_seconds}. "
            "60 suits trials that take minutes."
        )
    database = database_at(url)
    tables = database.tables()
    if not tables and not create:
        raise StorageError(
            "A study must have been run before it can be read, and there is nothing in "
            f"{database}. Run the study first, or mend the path or the URL."
        )
    if tables and not tables >= TABLES:
        raise StorageError(
            f"A study's database must be empty or Optuna's, got {database} with the tables "
            f"{', '.join(sorted(tables))}. Choose another path, or make a database of its own: "
            "createdb NAME"
        )

    def connect() -> StudyStorage:
        try:
            if not tables:
                database.make()
            with database.held() if create else nullcontext():  # others may be making it
                return StudyStorage(database, grace_seconds)  # type: ignore[abstract]
        except (SQLAlchemyError, StorageInternalError) as error:
            # SQLAlchemy's error holds the driver's, and is itself held by Optuna's.
            held = [getattr(found, "orig", None) for found in (error, error.__cause__)]
            raise failure_in(next(filter(None, held), None), str(database)) or error from error

    try:
        storage = Patience(OPENING_SECONDS)(connect)
        if missing := table_names() - database.tables():
            storage.close()
            raise StorageError(
                f"A study's database must be whole, but {database} has no tables "
                f"{', '.join(sorted(missing))}. Restore it from a copy."
            )
        return storage
    except RuntimeError as error:
        raise StorageError(
            "A study's storage must have the schema of the installed Optuna, got "
            f"{database}: {scrubbed(error, database.url)}"
        ) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(
            f"A study's database must be Optuna's, and writable, got {database}: "
            f"{scrubbed(error.__cause__ or error, database.url)}. Mend its permissions, or the URL."
        ) from None
    finally:
        database.close()
