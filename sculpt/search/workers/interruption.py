"""Ctrl-C that cannot get lost."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A service manager's stop is handled like Ctrl-C: the state is kept."""

TOGETHER_SECONDS = 1.0
"""Signals that come within this time are one: timeout(1) sends one to the process and one to its
group."""


class Interruption:
    """Raises KeyboardInterrupt after a signal: inside `at_once` immediately, else at `check`.

    A trial's books are kept whole (Optuna fails in odd ways when it is interrupted while it
    writes), and only what may take long can be cut short. A second signal is obeyed anywhere.
    What Python swallowed is raised again at `check`: it swallows what is raised inside a destructor
    or a weak reference's callback, often the first Python code to run after PyTorch's.
    """

    def __init__(self) -> None:
        self._requested_at: float | None = None
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            self._hook_before = sys.unraisablehook
            sys.unraisablehook = self._not_raised
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook_before

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._requested_at is not None:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal raise KeyboardInterrupt inside this block."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let a signal wait for the end of this block, also inside of `at_once`."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before
        if before:
            self.check()

    def _not_raised(self, what: "sys.UnraisableHookArgs") -> None:
        """Be silent about an interrupt that Python swallowed: it is not lost."""
        if self._requested_at is None or not issubclass(what.exc_type, KeyboardInterrupt):
            self._hook_before(what)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._requested_at is None:
            self._requested_at = now
        if self._at_once or now - self._requested_at > TOGETHER_SECONDS:
            raise KeyboardInterrupt
