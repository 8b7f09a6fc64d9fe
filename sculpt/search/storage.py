"""Where a study is kept: Optuna's RDBStorage, made safe for many processes on one SQLite file."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError

from sculpt.errors import StorageError
from sculpt.search.experimental import experimental_accepted
from sculpt.search.sqlite_file import BUSY_SECONDS, file_lock, prepare
from sculpt.search.storage_url import file_url, is_sqlite, optuna_url, parse, scrubbed, shown

INFEASIBLE = "infeasible"
"""User attribute of a trial whose parameters cannot be run; it takes no place in a limit."""

RETRY_OF = "failed_trial"
"""System attribute in which Optuna's retry callback keeps the number of the first attempt."""

ATTEMPTS = "retry_history"
"""System attribute in which it keeps the numbers of all earlier attempts."""

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


class StudyStorage(RDBStorage):
    """An RDBStorage that runs no trial twice, loses none, and keeps exact totals.

    Attributes:
        limits: Study id -> the most original trials (neither retries nor infeasible) it may
            hold. A study without an entry is unlimited.
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
        self._file = file
        with experimental_accepted():  # heartbeats are
            super().__init__(
                optuna_url(url),
                {"connect_args": {"timeout": BUSY_SECONDS}} if file else {"pool_pre_ping": True},
                heartbeat_interval=max(1, int(grace_seconds / 6)),
                grace_period=math.ceil(grace_seconds),
                skip_table_creation=not create,
            )

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock under which trials are claimed, counted and requeued.

        It keeps out other processes and other threads, and the thread that holds it may take
        it again.
        """
        if self._file is None:
            # PostgreSQL's row locks already keep a queued trial from being popped twice. Exact
            # totals and single retries across machines come with the distributed work.
            return nullcontext()
        return file_lock(self._file)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a trial's state; of all who ask for RUNNING, exactly one is answered True.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: The trial is finished.
        """
        # Upstream relies on SELECT FOR UPDATE, which SQLite lacks: queued trials ran twice.
        with self.lock():
            if state is TrialState.RUNNING and self.get_trial(trial_id).state is TrialState.WAITING:
                # Optuna never calls a running trial stale that has no heartbeat at all, so the
                # first one comes before the state, not after it from the heartbeat thread.
                self.record_heartbeat(trial_id)
            return super().set_trial_state_values(trial_id, state, values)

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
            return super()._create_new_trial(study_id, template_trial)
        with self.lock():
            while True:
                self._refuse_when_full(study_id)
                # Queued first: killed here, it waits for whoever pops it next, whereas a trial
                # born RUNNING would be without a heartbeat.
                queued = create_trial(state=TrialState.WAITING)
                trial_id = self.create_new_trial(study_id, queued)
                if self.set_trial_state_values(trial_id, TrialState.RUNNING):
                    return self.get_trial(trial_id)
                # Without a file lock (PostgreSQL) another process may have popped it already.

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
            or names something that is not an Optuna storage of this version. A file that is
            refused is left as it was.
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
    try:
        return StudyStorage(parsed, grace_seconds=grace_seconds, create=create)
    except ImportError:
        raise StorageError(
            f"{shown(parsed)} needs a PostgreSQL driver that is not installed. "
            "Install it with: pip install 'sculpt[postgres]'"
        ) from None
    except (RuntimeError, SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(
            f"A study's database must be reachable and Optuna's, got {shown(parsed)}: "
            f"{scrubbed(error, parsed)} Mend the URL, start the server, or run the study first."
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
