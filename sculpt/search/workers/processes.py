"""Processes that work for this one: started at once, stopped together, none left behind."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.multiprocessing  # makes pickled tensors travel through shared memory

from sculpt.errors import SculptError

STOP_SECONDS = 10.0
"""How long a process may take to put its things in order before it is killed."""

HELD_BACK = frozenset(
    getattr(signal, name) for name in ("SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
"""What a terminal (Ctrl-C) or a job's scheduler sends to all: only who started them acts on it."""

Task = Callable[..., None]
"""Called in a process with its connection, its number from 1, and the arguments of all."""

_crews: list[list["Member"]] = []
"""Those that are at work."""


class Member:
    """One of several processes, as seen by the one that starts them.

    Attributes:
        number: From 1.
        connection: A pipe for each, not one queue: a process killed in a queue leaves it locked
            for all.
    """

    def __init__(self, number: int, threads: int, task: Task, arguments: tuple[Any, ...]) -> None:
        self.number = number
        self._threads = threads
        self._call = (task, arguments)
        self.process: Any = None
        self.connection: Connection

    def start(self) -> None:
        """Start the process, or another one in the place of one that has ended.

        Raises:
            SculptError: the arguments hold tensors, and shared memory is too small for them.
        """
        if self.process is not None:
            self.connection.close()
        context = torch.multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        task, arguments = self._call
        self.connection, theirs = context.Pipe()
        call = (self._threads, task, theirs, self.number, *arguments)
        process = context.Process(target=_begin, args=call, daemon=True)
        with _environment("OMP_NUM_THREADS", str(self._threads)), _signals_held_back():
            _start(process)
        theirs.close()  # or its end would not be seen here
        self.process = process

    def receive(self) -> Any:
        """Return what the process sent next.

        Raises:
            SculptError: it failed; this is the error, or says what it was.
            EOFError: it has ended.
            OSError: it died in the middle of a word.
        """
        received = self.connection.recv()
        if isinstance(received, SculptError):
            raise received
        return received

    def why_it_ended(self) -> str | None:
        """Wait for the process to end; return None if it did so by itself."""
        self.process.join(STOP_SECONDS)
        code = self.process.exitcode
        if code == 0:
            return None
        if code is not None and code < 0:
            return f"worker {self.number} was killed ({signal.Signals(-code).name})"
        return f"worker {self.number} ended with exit code {code}"


def threads_each(count: int) -> int:
    """Return how many threads each of `count` processes gets of those that this one may use."""
    return max(1, torch.get_num_threads() // count)


@contextmanager
def crew(count: int, task: Task, *arguments: Any) -> Iterator[list[Member]]:
    """Start processes that share this one's threads; when the context ends, so have they.

    Raises:
        SculptError: the arguments hold tensors, and shared memory is too small for them.
    """
    threads = threads_each(count)
    members: list[Member] = []
    _crews.append(members)
    try:
        for number in range(1, count + 1):
            member = Member(number, threads, task, arguments)
            member.start()
            members.append(member)
        yield members
    finally:
        _crews.remove(members)
        _stop(members)


def stop_all() -> None:
    """Stop all processes that this one has started by `crew`, for whoever is about to be ended."""
    for members in _crews:
        _stop(members)


def _start(process: Any) -> None:
    try:
        process.start()
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        raise SculptError(
            f"the images must fit into shared memory for several trials at a time, but: {error}; "
            "enlarge /dev/shm (docker run --shm-size), or use one worker"
        ) from error


def _begin(threads: int, task: Task, connection: Connection, *arguments: Any) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task(connection, *arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        with suppress(OSError):  # nobody may be there any more
            connection.send(_as_sculpt_error(error))


def _as_sculpt_error(error: Exception) -> SculptError:
    """Return an error that another process can raise and that says what went wrong here."""
    if isinstance(error, SculptError):
        return error
    problem = SculptError(f"a worker must not fail, but did: {type(error).__name__}: {error}")
    problem.add_note("".join(traceback.format_exception(error)))
    return problem


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(1)


def _stop(members: list[Member]) -> None:
    for member in members:
        member.process.terminate()  # once: a second signal would disturb what the first one began
    try:
        deadline = time.monotonic() + STOP_SECONDS
        for member in members:
            member.process.join(max(0.0, deadline - time.monotonic()))
    finally:  # also when someone presses Ctrl-C again
        for member in members:
            member.process.kill()
            member.process.join()
            member.connection.close()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for processes started now: OpenMP reads it before Python code runs."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start processes deaf to signals that are for this one."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
