"""Where a study is kept: Optuna's RDBStorage, made safe for many processes and machines."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from sculpt.errors import StorageError
from sculpt.search.storage.experimental import experimental_accepted
from sculpt.search.storage.failures import LostStorageError, failure_in, in_one_line, name_failures
from sculpt.search.storage.retries import Patience, PatientStorage
from sculpt.search.storage.server import OPENING_SECONDS, check_server, server_options, with_driver
from sculpt.search.storage.server_lock import server_lock
from sculpt.search.storage.sqlite_file import file_lock, prepare, sqlite_options
from sculpt.search.storage.storage_url import (
    file_url,
    is_sqlite,
    optuna_url,
    parse,
    scrubbed,
    shown,
)

INFEASIBLE = "infeasible"
"""User attribute of a trial whose parameters cannot be run; it takes no place in a limit."""

RETRY_OF = "failed_trial"
"""System attribute in which Optuna's retry callback keeps the number of the first attempt."""

ATTEMPTS = "retry_history"
"""System attribute in which it keeps the numbers of all earlier attempts."""

EXCUSED = "sculpt:excused"
"""System attribute: how many attempts, this one included, do not speak against a trial."""

PROGRESS = "sculpt:progress"
"""System attribute: how far a trial was when its last attempt began that came further."""

# SQL and not get_all_trials, because this runs before every new trial, under the lock, and
# reading 1000 trials costs 0.5 s. Optuna versions its tables, and `prepare` checks the version.
# A retry and its first attempt share one origin, so that they count once or not at all.
_ORIGINS = f"""
    SELECT COALESCE(retry.value_json, CAST(trials.number AS VARCHAR)) FROM trials
    LEFT JOIN trial_system_attributes AS retry
    ON retry.trial_id = trials.trial_id AND retry.key = '{RETRY_OF}'"""
_COUNT_ORIGINALS = text(f"""
    SELECT COUNT(*) FROM ({_ORIGINS} WHERE trials.study_id = :study EXCEPT {_ORIGINS}
    JOIN trial_user_attributes AS mark
    ON mark.trial_id = trials.trial_id AND mark.key = '{INFEASIBLE}'
    WHERE trials.study_id = :study) AS originals""")


class StudyFull(Exception):  # noqa: N818 - the end of the work, not an error
    """The study already holds as many trials as its limit allows; nothing was created."""


class StudyStorage(PatientStorage):
    """An RDBStorage that runs no trial twice, loses none, and keeps exact totals.

    Attributes:
        limits: Study id -> the most original trials (neither retries nor infeasible) it may
            hold. A study without an entry is unlimited.
        patience: Repeats what may be repeated while a server is away; see `Patience`.
    """

    def __init__(
        self, url: URL, *, grace_seconds: float, file: Path | None = None, create: bool = False
    ) -> None:
        """Connect; `open_storage` is the door, which checks everything first.

        Args:
            url: Where the tables are.
            grace_seconds: Silence after which a running trial counts as dead.
            file: The SQLite file behind `url`, if there is one.
            create: Make missing tables.
        """
        self.limits: dict[int, int] = {}
        self.patience = Patience()
        self._file = file
        self._place = str(file or shown(url))
        with experimental_accepted():  # heartbeats are
            super().__init__(
                optuna_url(url),
                sqlite_options() if file else server_options(url),
                heartbeat_interval=max(1, int(grace_seconds / 6)),
                grace_period=math.ceil(grace_seconds),
                skip_table_creation=not create,
            )
        name_failures(self.engine, self._place)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        name_failures(self.engine, self._place)

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock under which trials are claimed, counted and requeued.

        It keeps out other processes and other threads, and the thread that holds it may take
        it again.
        """
        return file_lock(self._file) if self._file else server_lock(self.url)

    def check_lock(self) -> None:
        """Make sure that the lock, if this thread has taken it, was held up to now.

        Raises:
            LostLockError: A server's lock was not: its connection was cut.
        """
        if self._file is None:
            server_lock(self.url).check()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a trial's state; of all who ask for RUNNING, at most one is answered True.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: The trial is finished.
        """
        tries = 0

        # A try may be written and only its answer lost. One that finished the trial is known by
        # what it wrote. One that claimed it is not: the next try is answered False, and nobody
        # runs the trial; but its heartbeat was written before, so it is stale soon, and retried.
        def set_once() -> bool:
            nonlocal tries
            tries += 1
            try:
                return super(StudyStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries > 1 and self._is_set(trial_id, state, values):
                    return True
                raise

        # Upstream relies on SELECT FOR UPDATE, which SQLite lacks: queued trials ran twice.
        with self.lock() if self._file else nullcontext():
            if state is TrialState.RUNNING and self.get_trial(trial_id).state is TrialState.WAITING:
                # Optuna never calls a running trial stale that has no heartbeat at all, so the
                # first one comes before the state, not after it from the heartbeat thread.
                super().record_heartbeat(trial_id)
            return self.patience(set_once)

    def _is_set(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        trial = self.get_trial(trial_id)
        return trial.state is state and list(trial.values or ()) == list(values or ())

    def record_heartbeat(self, trial_id: int) -> None:
        """Say that a trial is alive; a storage that cannot be written now is told later."""
        # Optuna's heartbeat thread ends with what is raised here, and a living trial with it.
        with suppress(LostStorageError):
            super().record_heartbeat(trial_id)

    # A private name, because Optuna's cache, which wraps every RDBStorage that a study is given,
    # calls it and not `create_new_trial`; the public method ends here, too.
    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        """Create a trial; one without a template is counted, and claimed for the caller.

        Raises:
            StudyFull: The study's limit is reached and no template was given.
        """
        if template_trial is not None:
            # Not repeated: if the answer is lost, whoever wanted it must look what is there.
            return super()._create_new_trial(study_id, template_trial)
        # Repeated from counting on: a trial that was queued although the answer was lost is
        # counted then, and run by whoever looks into the queue next.
        return self.patience(self._create_and_claim, study_id)

    def _create_and_claim(self, study_id: int) -> FrozenTrial:
        with self.lock():
            while True:
                self._refuse_when_full(study_id)
                # Queued first: killed here, it waits for whoever pops it next, whereas a trial
                # born RUNNING would be without a heartbeat.
                queued = create_trial(state=TrialState.WAITING)
                trial_id = self.create_new_trial(study_id, queued)
                if self.set_trial_state_values(trial_id, TrialState.RUNNING):
                    return self.get_trial(trial_id)
                # Queued trials are popped without the lock: another process was faster.

    # A private name again: the one place inside of the transaction that creates a trial.
    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> Any:
        if self._file is None:
            server_lock(self.url).fence(session)
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def _refuse_when_full(self, study_id: int) -> None:
        limit = self.limits.get(study_id)
        if limit is None:
            return
        with self.engine.connect() as connection:
            originals = connection.execute(_COUNT_ORIGINALS, {"study": study_id}).scalar_one()
        if originals >= limit:
            raise StudyFull(f"the study holds {originals} trials of {limit}")

    def close(self) -> None:
        """Close the database connections; using the storage again opens new ones."""
        self.remove_session()
        self.engine.dispose()
        if self._file is None:
            server_lock(self.url).disconnect()


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
    if is_sqlite(parsed):
        file = Path(parsed.database or "").expanduser().absolute()
        prepare(file, create=create)
        return StudyStorage(file_url(file), grace_seconds=grace_seconds, file=file)
    parsed = with_driver(parsed)

    def connect() -> StudyStorage:
        try:
            return StudyStorage(parsed, grace_seconds=grace_seconds, create=create)
        except (SQLAlchemyError, StorageInternalError) as error:
            # SQLAlchemy's error holds the driver's, and is itself held by Optuna's.
            held = [getattr(found, "orig", None) for found in (error, error.__cause__)]
            driver_error = next(filter(None, held), None)
            raise failure_in(driver_error, shown(parsed)) or error from error

    try:
        check_server(parsed, create=create)
        # Under the lock, because tables are made in several steps.
        with server_lock(parsed.render_as_string(False)) if create else nullcontext():
            return Patience(OPENING_SECONDS)(connect)
    except ImportError:
        raise StorageError(
            f"{shown(parsed)} needs a PostgreSQL driver that is not installed. "
            "Install it with: pip install 'sculpt[postgres]'"
        ) from None
    except RuntimeError as error:
        raise StorageError(
            "A study's database must have the schema of the installed Optuna, got "
            f"{shown(parsed)}: {scrubbed(error, parsed)}"
        ) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(
            f"A study's database must be Optuna's, and writable, got {shown(parsed)}: "
            f"{in_one_line(scrubbed(error.__cause__ or error, parsed))}. Mend its permissions, or "
            "the URL."
        ) from None


def storage_of(study: Study) -> StudyStorage:
    """Return the storage that `study` was given.

    Raises:
        TypeError: It is not a `StudyStorage`.
    """
    # Private names, because Optuna has no public way from a study to its storage, and hides
    # every RDBStorage behind a cache of its own.
    storage = getattr(study._storage, "_backend", study._storage)
    if not isinstance(storage, StudyStorage):
        raise TypeError(f"the study's storage must come from open_storage, got {storage!r}")
    return storage
