"""Several trials at a time on one device: each in a process of its own, one view of them all."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import optuna
import torch

from sculpt.config import Study
from sculpt.data import Splits
from sculpt.errors import InputError, SculptError
from sculpt.registry import load_plugins
from sculpt.search.concurrency import measure_concurrency
from sculpt.search.confirmation import queue_confirmation
from sculpt.search.interruption import Interruption
from sculpt.search.processes import Member, crew, threads_each
from sculpt.search.progress import Watcher
from sculpt.search.samplers import make_sampler
from sculpt.search.store import start_store
from sculpt.search.worker import Worker
from sculpt.training.memory import keep_freed_memory

TrialsPerDevice = int | Literal["auto"]

LOOK_SECONDS = 1.0
"""Between looks for a Ctrl-C that Python swallowed."""


@dataclass(frozen=True)
class Assignment:
    """What a worker in another process needs to run candidates of a study."""

    config: Study
    splits: Splits
    """On the CPU, so that all processes share one copy."""
    device: str
    budget: int
    total: int


def check_trials_per_device(given: Any) -> None:
    """Refuse a number of trials at a time that is none.

    Raises:
        InputError: it is neither a whole number of at least 1 nor `auto`.
    """
    if given != "auto" and (type(given) is not int or given < 1):
        raise InputError(
            f"--trials-per-device must be a whole number of at least 1, or auto, but got {given!r}"
        )


def run_together(worker: Worker, total: int, trials_per_device: TrialsPerDevice) -> None:
    """Run the base and then candidates, several at a time, until `total` trials are finished.

    Args:
        worker:
            Of this process; it trains the base, and the rest should the other workers leave any.
        total:
            Of trials, the base included.
        trials_per_device:
            How many at a time; `auto` measures which number is the fastest.

    Raises:
        SculptError: the base failed, every candidate did, or every worker died.
    """
    worker.watcher.run_started(total, worker.store.finished)
    count = 1 if trials_per_device == "auto" else trials_per_device
    if trials_per_device == "auto" and worker.store.finished < total:
        with worker.interruption.at_once():
            measured = measure_concurrency(worker.store.config, worker.splits)
        count = measured.best
        worker.watcher.message(str(measured))
    # With the threads of the candidates, because arithmetic depends on their number.
    with _threads(threads_each(count)):
        worker.train_base()
    left = total - worker.store.finished + queue_confirmation(worker.store, dry=True)
    count = min(count, left)
    if count > 1:
        _search_together(worker, total, count)
    worker.search(total)
    worker.confirm()


def _search_together(worker: Worker, total: int, count: int) -> None:
    splits, config = worker.splits, worker.store.config
    assignment = Assignment(
        config, splits.to("cpu"), str(splits.train.device), worker.budget, total
    )
    with crew(count, _search, assignment) as members:
        working: dict[Any, Member] = {member.connection: member for member in members}
        last: dict[int, str] = {}
        problems = []
        while working:
            worker.interruption.check()
            for connection in wait(list(working), LOOK_SECONDS):
                member = working[connection]
                worker.watcher.from_worker(member.number)
                try:
                    name, arguments = member.receive()
                except (EOFError, OSError):
                    del working[connection]
                    if problem := member.why_it_ended():
                        problems.append(problem)
                        worker.watcher.worker_lost(problem)
                    continue
                last[member.number] = name
                # That one waits for another of these workers is no news.
                if name != "waiting" or all(last.get(m.number) == name for m in working.values()):
                    getattr(worker.watcher, name)(*arguments)
    worker.watcher.from_worker(0)
    if len(problems) == count:
        raise SculptError(
            f"a worker must live to the end, but all {count} died: {'; '.join(problems)}. If "
            "memory ran out, lower --trials-per-device; the same command goes on"
        )


class Reporter(Watcher):
    """Tells the process that started this one whatever a watcher can be told."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Watcher, name):
            return super().__getattribute__(name)
        return partial(self._tell, name)

    def _tell(self, name: str, *arguments: Any) -> None:
        with suppress(OSError):  # nobody is there any more, and this process about to be stopped
            self._connection.send((name, arguments))


def _search(connection: Connection, number: int, assignment: Assignment) -> None:
    """Run candidates in this process, and then confirmations, until none is left to run."""
    with Interruption() as interruption:
        load_plugins(assignment.config.plugins)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if assignment.device == "cpu":
            keep_freed_memory()
        splits = assignment.splits.to(assignment.device)
        store = start_store(assignment.config, splits.fingerprint, assignment.total)
        candidates = store.candidates
        before = len(candidates.get_trials(deepcopy=False))
        candidates.sampler = make_sampler(assignment.config, before, number)
        worker = Worker(store, splits, assignment.budget, Reporter(connection), interruption)
        worker.search(assignment.total)
        worker.confirm()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
