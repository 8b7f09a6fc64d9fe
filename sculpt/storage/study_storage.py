"""The storage of a study: Optuna's RDBStorage, made safe for many processes and machines."""

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from sculpt.errors import StorageError
from sculpt.storage.failures import (
    LostStorageError,
    Patience,
    failure_in,
    in_one_line,
    translate_failures,
)
from sculpt.storage.optuna_names import cached, experimental_accepted, stale_trial_ids
from sculpt.storage.postgres import (
    OPENING_SECONDS,
    ServerLock,
    check_server,
    server_options,
)
from sculpt.storage.sqlite_file import file_lock, prepare, sqlite_options
from sculpt.storage.storage_url import (
    file_url,
    is_sqlite,
    optuna_url,
    parse,
    scrubbed,
    shown,
)

P = ParamSpec("P")
T = TypeVar("T")

NOT_REPEATED = ("create_new_study", "delete_study", "create_new_trial")
"""Methods of a storage that make something or take it away. After a lost answer nobody knows
whether it is there, so the caller starts over by looking. All others may be called twice: they
read, or are idempotent (Optuna ignores a parameter written before)."""


class DelegatingStorage(BaseStorage):
    """A storage that calls the backend's method of the same name, unless a subclass overrides it.

    Optuna uses any `BaseStorage` by its public methods alone. Those that it adds are delegated,
    too; type checkers do not see methods made in a loop, and take subclasses for abstract.
    """

    def __init__(self, backend: BaseStorage) -> None:
        self._backend = backend

    def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the backend."""
        return method(*args, **kwargs)


def _delegate(name: str) -> Callable[..., object]:
    @wraps(getattr(BaseStorage, name), updated=())  # or it would be abstract, too
    def call(self: DelegatingStorage, *args: object, **kwargs: object) -> object:
        return self._call(getattr(self._backend, name), *args, **kwargs)

    return call


for _name in BaseStorage.__abstractmethods__:
    setattr(DelegatingStorage, _name, _delegate(_name))
abc.update_abstractmethods(DelegatingStorage)  # type: ignore[type-abstract]


class StudyStorage(DelegatingStorage):
    """An RDBStorage for many workers: no trial is claimed twice, and a server may be away.

    `open_storage` opens one, and checks everything first.

    Args:
        url: Database with the tables.
        grace_seconds: Silence after which a running trial counts as dead.
        file: The SQLite file behind `url`, if there is one.
        create: Make missing tables.

    Attributes:
        patience: Repeats what may be repeated while a server is away; see `Patience`.
        heartbeat_seconds: Between two signs of life of a running trial; six to a grace period.
    """

    def __init__(
        self, url: URL, *, grace_seconds: float, file: Path | None = None, create: bool = False
    ) -> None:
        self.patience = Patience()
        self._only_queued = False
        self._file = file
        self._place = str(file or shown(url))
        with experimental_accepted():  # heartbeats are
            self._tables = RDBStorage(
                optuna_url(url),
                sqlite_options() if file else server_options(url),
                heartbeat_interval=1,
                skip_table_creation=not create,
            )
        self.allow_silence(grace_seconds)
        super().__init__(cached(self._tables))
        self._connect()

    def allow_silence(self, grace_seconds: float) -> None:
        """Let a running trial count as dead once its worker has been silent for so long."""
        self.heartbeat_seconds = max(1, int(grace_seconds / 6))
        self._tables.grace_period = math.ceil(grace_seconds)

    def _connect(self) -> None:
        translate_failures(self.engine, self._place)
        self._lock: FileLock | ServerLock
        if self._file:
            self._lock = file_lock(self._file)
        else:
            self._lock = ServerLock(self._tables.url)
            self._lock.fence(self.engine)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._connect()

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, for statements that Optuna has no method for."""
        return self._tables.engine

    def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if method.__name__ in NOT_REPEATED:
            return method(*args, **kwargs)
        return self.patience(method, *args, **kwargs)

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock under which trials are claimed, drawn and requeued.

        It keeps out other processes, threads and storages; the thread that holds it may take it
        again.
        """
        return self._lock.held() if isinstance(self._lock, ServerLock) else self._lock

    def check_lock(self) -> None:
        """Raise a `LostLockError` if this thread has taken a server's lock, and its connection was
        cut."""
        if isinstance(self._lock, ServerLock):
            self._lock.check()

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
        if self._only_queued:
            raise LostClaimError("a queued trial was claimed by another process, or unanswered")
        # Queued first: killed here, it waits for the next claim, whereas a trial born RUNNING
        # would be without a heartbeat, and Optuna never calls such a trial stale.
        queued = create_trial(state=TrialState.WAITING)
        trial_id = self._backend.create_new_trial(study_id, queued)
        if not self.set_trial_state_values(trial_id, TrialState.RUNNING):
            raise LostClaimError("a new trial was claimed by another process, or unanswered")
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
        with self.lock() if self._file else nullcontext():
            if state is TrialState.RUNNING and self.get_trial(trial_id).state is TrialState.WAITING:
                self.patience(self._tables.record_heartbeat, trial_id)
            return self.patience(set_once)

    def record_heartbeat(self, trial_id: int) -> None:
        """Write a sign of life of a trial; a storage that cannot be written now is told later."""
        with suppress(LostStorageError):
            self.patience(self._tables.record_heartbeat, trial_id)

    def fail_silent(self, study_id: int) -> None:
        """Fail the running trials of a study whose workers have been silent for too long."""
        for trial_id in self.patience(stale_trial_ids, self._tables, study_id):
            with suppress(UpdateFinishedTrialError):  # it has just ended, or others were faster
                self.set_trial_state_values(trial_id, TrialState.FAIL)

    def close(self) -> None:
        """Close the database connections; using the storage again opens new ones."""
        self._tables.remove_session()
        self.engine.dispose()
        if isinstance(self._lock, ServerLock):
            self._lock.close()


class MemoryStorage(InMemoryStorage):
    """The storage of an archive's trials, which are only read."""

    def close(self) -> None:
        """Do nothing: there is no connection to end."""


class LostClaimError(LostStorageError):
    """A trial was made, and it is not known who runs it: start over by looking."""

    passes = True


def open_storage(url: str, *, create: bool, grace_seconds: float = 60.0) -> StudyStorage:
    """Open the storage at `url`.

    Args:
        url: `sqlite:///PATH`, a bare path ending in .db, or a postgresql URL.
        create: Make the SQLite file and its folders, or the tables, when they are absent.
        grace_seconds: Silence after which a running trial counts as dead; at least 2, because
            heartbeats are whole seconds apart.

    Returns:
        The storage; its `close()` ends its connections.

    Raises:
        StorageError: `url` is not of an accepted kind, names nothing while `create` is false,
            or names something that is not an Optuna storage of this version. A file or database
            that is refused is left as it was.
    """
    if not 2 <= grace_seconds < math.inf:
        raise StorageError(
            f"grace_seconds must be finite and at least 2, got {grace_seconds}. "
            "60 suits trials that take minutes."
        )
    parsed = parse(url)
    try:
        if not is_sqlite(parsed):
            return _open_server(parsed, create=create, grace_seconds=grace_seconds)
        file = Path(parsed.database or "").expanduser().absolute()
        parsed = file_url(file)
        prepare(file, create=create)
        return StudyStorage(parsed, grace_seconds=grace_seconds, file=file)  # type: ignore[abstract]
    except RuntimeError as error:
        raise StorageError(
            "A study's storage must have the schema of the installed Optuna, got "
            f"{shown(parsed)}: {scrubbed(error, parsed)}"
        ) from None


def _open_server(url: URL, *, create: bool, grace_seconds: float) -> StudyStorage:
    def connect() -> StudyStorage:
        try:
            return StudyStorage(  # type: ignore[abstract]
                url, grace_seconds=grace_seconds, create=create
            )
        except (SQLAlchemyError, StorageInternalError) as error:
            # SQLAlchemy's error holds the driver's, and is itself held by Optuna's.
            held = [getattr(found, "orig", None) for found in (error, error.__cause__)]
            driver_error = next(filter(None, held), None)
            raise failure_in(driver_error, shown(url)) or error from error

    try:
        check_server(url, create=create)
        if not create:
            return Patience(OPENING_SECONDS)(connect)
        # Under the lock, because tables are made in several steps.
        lock = ServerLock(url.render_as_string(hide_password=False))
        with closing(lock), lock.held():
            return Patience(OPENING_SECONDS)(connect)
    except ImportError:
        raise StorageError(
            f"{shown(url)} needs a PostgreSQL driver that is not installed. "
            "Install it with: pip install 'sculpt[postgres]'"
        ) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(
            f"A study's database must be Optuna's, and writable, got {shown(url)}: "
            f"{in_one_line(scrubbed(error.__cause__ or error, url))}. Mend its permissions, or "
            "the URL."
        ) from None
