"""Ctrl-C that cannot get lost."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A service manager's stop is handled like Ctrl-C: the state is kept."""


class Interruption:
    """Raises KeyboardInterrupt on a signal, and again at `check` if that was swallowed.

    Python swallows what is raised inside a destructor or a weak reference's callback, and with
    PyTorch those are often the first Python code to run after a long computation.
    """

    def __init__(self) -> None:
        self._requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        raise KeyboardInterrupt
