"""Several workers on one machine: each in a process of its own, one view of them all."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from sculpt.errors import InputError, SculptError
from sculpt.search.confirmation import queue_confirmation
from sculpt.search.progress import Watcher
from sculpt.search.store import Store
from sculpt.search.workers.concurrency import measure_concurrency
from sculpt.search.workers.interruption import Interruption
from sculpt.search.workers.processes import Member, crew
from sculpt.search.workers.work import Work

TrialsPerDevice = int | Literal["auto"]

LOOK_SECONDS = 1.0
"""Between looks for a Ctrl-C that Python swallowed."""

MOST_REPLACEMENTS = 3
"""Of a worker that dies again and again without a finished trial in between."""


@dataclass(frozen=True)
class HowMany:
    """How many workers a machine is asked for.

    Raises:
        InputError: one of the numbers is none, or both are given.
    """

    workers: int | None = None
    """In all."""
    trials_per_device: TrialsPerDevice = 1
    """On each device; `auto` measures which number is the fastest."""
    apart: bool = False
    """Whether a single one, too, gets a process of its own."""

    def __post_init__(self) -> None:
        each = self.trials_per_device
        if each != "auto" and (type(each) is not int or each < 1):
            raise InputError(
                "--trials-per-device must be a whole number of at least 1, or auto, but got "
                f"{each!r}"
            )
        if self.workers is None:
            return
        if type(self.workers) is not int or self.workers < 1:
            raise InputError(
                f"--workers must be a whole number of at least 1, but got {self.workers!r}"
            )
        if each != 1:
            raise InputError(
                "the number of workers must be given once, but got both --workers "
                f"{self.workers} and --trials-per-device {each}; leave out one of them"
            )

    @property
    def several(self) -> bool:
        """Whether there may be more than one worker for each device that is named."""
        return self.trials_per_device != 1 or (self.workers or 1) > 1


def run_workers(store: Store, work: Work, watcher: Watcher, how_many: HowMany) -> None:
    """Run the base and candidates of a study until its total of trials is finished.

    Args:
        store:
            The study, opened by this process.
        work:
            What its workers need.
        watcher:
            Is told of the progress.
        how_many:
            Workers.

    Raises:
        SculptError: the base failed, every candidate did, or every worker died.
    """
    total = store.total if work.total is None else work.total
    try:
        with Interruption() as interruption:
            watcher.run_started(total, store.finished)
            left = total - store.finished + queue_confirmation(store, dry=True)
            count = how_many.workers
            if count is None:
                each = how_many.trials_per_device
                if each == "auto":
                    each = _measure(work, watcher, interruption) if left > 0 else 1
                count = each * len(work.devices)
            count = min(count, left)
            if count > 1 or (how_many.apart and count == 1):
                _work_together(work, watcher, interruption, count)
            # By itself; or the rest, should the others have left any.
            work.worker(0, watcher, interruption).run(work.total)
    finally:
        watcher.run_finished()


def _measure(work: Work, watcher: Watcher, interruption: Interruption) -> int:
    """Measure on the first device; the others are taken to be of the same kind."""
    with interruption.at_once():
        measured = measure_concurrency(work.config, work.splits.to(work.devices[0]))
    watcher.message(str(measured))
    return measured.best


def _work_together(work: Work, watcher: Watcher, interruption: Interruption, count: int) -> None:
    with crew(count, _run_trials, work) as members:
        working: dict[Any, Member] = {member.connection: member for member in members}
        last: dict[int, str] = {}
        deaths: Counter[int] = Counter()  # since the last trial that finished
        given_up = []
        while working:
            interruption.check()
            for connection in wait(list(working), LOOK_SECONDS):
                member = working[connection]
                watcher.from_worker(member.number)
                try:
                    name, arguments = member.receive()
                except (EOFError, OSError):
                    del working[connection]
                    if problem := member.why_it_ended():
                        watcher.worker_lost(problem)
                        deaths[member.number] += 1
                        if deaths[member.number] > MOST_REPLACEMENTS:
                            given_up.append(problem)
                        else:
                            member.start()
                            working[member.connection] = member
                            last.pop(member.number, None)
                    continue
                last[member.number] = name
                if name == "trial_finished":
                    deaths[member.number] = 0
                # That one waits for another of these workers is no news.
                if name != "waiting" or all(last.get(m.number) == name for m in working.values()):
                    getattr(watcher, name)(*arguments)
    watcher.from_worker(0)
    if len(given_up) == count:
        raise SculptError(
            f"a worker must live to the end, but all {count} died: {'; '.join(given_up)}. If "
            "memory ran out, lower --workers or --trials-per-device; the same command goes on"
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


def _run_trials(connection: Connection, number: int, work: Work) -> None:
    """Run trials in this process until none is left to run."""
    with Interruption() as interruption:
        work.worker(number, Reporter(connection), interruption).run(work.total)
