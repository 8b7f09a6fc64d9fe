"""Statements that are repeated while a database server is away."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from sculpt.search.storage.failures import LostStorageError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 60.0
"""How long a server may be away before a run ends: a restart takes seconds."""


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
