"""Statements that are repeated while a database server is away."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from optuna.storages import RDBStorage
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from sculpt.search.storage.failures import LostStorageError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 60.0
"""How long a server may be away before a run ends: a restart takes seconds."""

# What Optuna's cache, its heartbeat thread and sculpt call of an RDBStorage, and may call twice:
# reads, and writes that say what shall be. (A parameter written before is ignored by Optuna.) Not
# among them: what creates a study or a trial. After a lost answer nobody knows whether it exists,
# so whoever wanted it starts over by looking; and `set_trial_state_values`, see `StudyStorage`.
IDEMPOTENT = (
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "set_trial_param",
    "_set_trial_param",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_param",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_trial",
    "get_all_trials",
    "_get_trials",
    "_get_best_trial_id",
    "record_heartbeat",
    "_get_stale_trial_ids",
)


class Patience:
    """Repeats what does no harm when it is done twice, while the server is away.

    All calls share it: once its time is used up, each is tried once, until one succeeds. Otherwise
    the dozen statements by which a trial ends would each wait for a dead server.

    Args:
        seconds: How long a server may be away.
    """

    def __init__(self, seconds: float = RETRY_SECONDS) -> None:
        self._seconds = seconds
        self._away_since: float | None = None

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function`, again if need be, and return what it returns.

        Raises:
            LostStorageError: The last one, when patience ends, or one that does not pass.
        """
        started = time.monotonic()

        def once() -> T:
            try:
                result = function(*args, **kwargs)
            except LostStorageError as lost:
                if lost.passes and self._away_since is None:
                    self._away_since = time.monotonic()
                raise
            self._away_since = None
            return result

        def is_over(state: RetryCallState) -> bool:
            return time.monotonic() - min(started, self._away_since or started) >= self._seconds

        return Retrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, LostStorageError) and error.passes
            ),
            wait=wait_random_exponential(multiplier=0.1, max=3.0),
            stop=is_over,
            reraise=True,
        )(once)


class PatientStorage(RDBStorage):
    """An RDBStorage whose idempotent methods are repeated while its server is away."""

    patience: Patience


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def patiently(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patience(method, self, *args, **kwargs)

    return patiently


for _name in IDEMPOTENT:
    setattr(PatientStorage, _name, _patient(_name))
