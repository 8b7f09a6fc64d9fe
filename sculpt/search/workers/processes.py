"""Worker processes: started at once, stopped together, none left behind."""

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
"""Signals that a terminal (Ctrl-C) or a job's scheduler sends to all: only the process that
started the others acts on them."""

Task = Callable[..., None]
"""Called in a process with its connection, its number from 1, and the arguments of all."""


class WorkerProcess:
    """One of several processes, as seen by the one that starts them.

    Attributes:
        number: Number of the process, from 1.
        connection: A pipe for each, not one queue: a process killed in a queue leaves it locked
            for all.
    """

    def __init__(self, number: int, threads: int, task: Task, arguments: tuple[Any, ...]) -> None:
        self.number, self._threads = number, threads
        self._task, self._arguments = task, arguments
        self.process: Any = None
        self.connection: Connection

    def start(self) -> None:
        """Start the process, or another one in the place of one that has ended; SculptError if
        shared memory is too small for the tensors among its arguments."""
        if self.process is not None:
            self.connection.close()
        context = _context()
        self.connection, theirs = context.Pipe()
        call = (self._threads, dict(os.environ), self._task, theirs, self.number, *self._arguments)
        process = context.Process(target=_begin, args=call, daemon=True)
        try:
            with _openmp_threads(self._threads), _signals_held_back():
                process.start()
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            raise SculptError(
                f"the images must fit into shared memory for several trials at a time, but: "
                f"{error}; enlarge /dev/shm (docker run --shm-size), or use one worker"
            ) from error
        theirs.close()  # or its end would not be seen here
        self.process = process

    def receive(self) -> Any:
        """Return the next object that the process sent; raise its error if it failed, EOFError if
        it has ended, OSError if it died in the middle of a word."""
        received = self.connection.recv()
        if isinstance(received, SculptError):
            raise received
        return received

    def why_it_ended(self) -> str | None:
        """Wait for the process to end; return None if it did so by itself."""
        self.process.join(STOP_SECONDS)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"worker {self.number} was killed ({signal.Signals(-code).name})"
        return f"worker {self.number} ended with exit code {code}" if code != 0 else None


@contextmanager
def worker_processes(count: int, task: Task, *arguments: Any) -> Iterator[list[WorkerProcess]]:
    """Start processes that share this one's threads; when the context ends, so have they."""
    threads = max(1, torch.get_num_threads() // count)
    workers: list[WorkerProcess] = []
    try:
        for number in range(1, count + 1):
            worker = WorkerProcess(number, threads, task, arguments)
            worker.start()
            workers.append(worker)
        yield workers
    finally:
        stop([worker.process for worker in workers])
        for worker in workers:
            worker.connection.close()


def stop(processes: list[Any]) -> None:
    """Stop processes of `multiprocessing`; kill those that take too long."""
    for process in processes:
        process.terminate()  # once: a second signal would disturb what the first one began
    try:
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:  # also when someone presses Ctrl-C again
        for process in processes:
            process.kill()
            process.join()


def _context() -> Any:
    """Return the start method of workers: forks of a process that has imported everything and used
    no device, because CUDA does not survive a fork; new processes where a fork is not safe."""
    if sys.platform != "linux":
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sculpt.search.session"])
    return context


def _begin(
    threads: int,
    environment: dict[str, str],
    task: Task,
    connection: Connection,
    *arguments: Any,
) -> None:
    os.environ.clear()  # that of the forked process is as old as this one's first worker
    os.environ.update(environment)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task(connection, *arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        problem = error
        if not isinstance(error, SculptError):  # another process may be unable to raise it
            problem = SculptError(
                f"a worker must not fail, but did: {type(error).__name__}: {error}"
            )
            problem.add_note("".join(traceback.format_exception(error)))
        with suppress(OSError):  # the parent may have ended
            connection.send(problem)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(1)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start processes that ignore signals meant for this one."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _openmp_threads(number: int) -> Iterator[None]:
    """Start processes with so many threads: OpenMP reads the variable before Python code runs."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(number)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        os.environ |= {} if before is None else {"OMP_NUM_THREADS": before}
