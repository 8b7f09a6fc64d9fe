"""A session: this machine's part in a study, from its first check to its last trial.

`sculpt run` starts the study, or goes on with it; `sculpt worker`, a task of Ray's and a job of
Slurm's join it. From there on all are the same: each worker takes the next trial from the study's
storage.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import optuna
import torch

from sculpt.config import Overrides, Study
from sculpt.data import Splits
from sculpt.documents import Document, assign, lookup, read_yaml
from sculpt.errors import ConfigError, InputError, LostDeviceError, SculptError
from sculpt.export.runtimes import missing_runtime
from sculpt.registry import asked_for, load_plugins, refuse_absent_plugins
from sculpt.search.confirmation_queue import queue_confirmation
from sculpt.search.images import check_scoring_images, describe_data, load_data
from sculpt.search.opponents import opponent_setups, queue_opponents
from sculpt.search.progress import Watcher
from sculpt.search.sampling.feasibility import total_trials
from sculpt.search.sampling.samplers import make_sampler, resolve_sampler
from sculpt.search.workers.concurrency import measure_concurrency
from sculpt.search.workers.devices import WorkerCount, use_device
from sculpt.search.workers.interruption import Interruption
from sculpt.search.workers.processes import WorkerProcess, worker_processes
from sculpt.search.workers.worker import Worker
from sculpt.storage.opening import open_store, open_study, start_store, to_work_on
from sculpt.storage.store import Store, is_archive, refuse_archive
from sculpt.study_file import document_faults, load_plugins_of
from sculpt.training.precision import resolve_precision
from sculpt.trial_setup import resolve_budget

OF_THE_MACHINE = (
    "data.root",
    "data.download",
    "pruning.data.root",
    "pruning.data.download",
    "artifacts",
)
"""Settings that a worker may have for itself: images and artifacts are checked to be the same."""

LOOK_SECONDS = 1.0
"""Between looks for a Ctrl-C that Python swallowed."""

MOST_REPLACEMENTS = 3
"""Replacements of a worker that dies again and again without a finished trial in between."""


class Session:
    """A study that was checked, and all that the workers of this machine need to train it.

    A process opens the study once. Processes that are given a session open it for themselves.

    Attributes:
        config: The study.
        splits: Its images, on the CPU, so that all processes share one copy.
        devices: Devices dealt out to the workers in turn; none where others train it.
        budget: Parameters of its base's budget; see `resolve_budget`.
        total: Total of trials, the base included; None is the total that the study was last asked
            for, now or later.
    """

    def __init__(
        self, config: Study, devices: Sequence[torch.device], *, budget: int, total: int | None
    ) -> None:
        self.config, self.devices = config, list(devices)
        self.budget, self.total = budget, total
        # Of the plug-ins of a study that was read, only those that a person has named here.
        self.trusted = asked_for(config.plugins)
        self.splits: Splits = load_data(config)
        check_scoring_images(config, self.splits)

    @classmethod
    def start(cls, config: Study, devices: Sequence[torch.device]) -> "Session":
        """Check a study, and make what is missing where it is kept; InputError if it cannot be run
        as it is, and then nothing was written."""
        refuse_absent_plugins(config.plugins)
        _check_machine(config, devices)
        spec = describe_data(config)
        # In the order of `check_study`, so that both give the same reason.
        budget = resolve_budget(config, spec)
        resolve_sampler(config)
        total = total_trials(config, spec)
        opponent_setups(config, spec)
        session = cls(config, devices, budget=budget, total=total)
        _silence_optuna()
        session.store = start_store(config, session.splits.fingerprint, total)
        return session

    @classmethod
    def join(
        cls,
        reference: str | Path,
        storage: str | None,
        overrides: Overrides,
        devices: Sequence[torch.device],
    ) -> "Session":
        """Open a study that was started elsewhere; a total that is raised later is followed.

        Of a study file only its name, its storage, its plug-ins and the settings `OF_THE_MACHINE`
        are read, of which `overrides` are some, too.

        Raises:
            StorageError: There is no such study; run it first.
            InputError: This machine cannot work on it, or another setting is given.
        """
        if is_archive(reference, storage):
            refuse_archive(reference, "a worker must join a study where it is kept")
        if others := [key for key in overrides if key not in OF_THE_MACHINE]:
            raise InputError(
                f"a worker must train what the study was started with, so --set takes only "
                f"{', '.join(OF_THE_MACHINE)}, but got {', '.join(others)}; change the study where "
                "it is run (sculpt run)"
            )
        found = open_store(reference, storage)
        local = read_yaml(Path(reference)) if str(reference).endswith((".yaml", ".yml")) else {}
        load_plugins_of(local)
        refuse_absent_plugins(found.config.plugins)
        config = _with_overrides(found.config, _of_the_machine(found.config, local) | overrides)
        _check_machine(config, devices)
        budget = resolve_budget(config, describe_data(config))
        session = cls(config, devices, budget=budget, total=None)
        session.store = to_work_on(found, config, session.splits.fingerprint)
        return session

    @cached_property
    def store(self) -> Store:
        """The study, opened by this process; see `to_work_on`."""
        found = open_study(self.config.study, self.config.storage_url)
        return to_work_on(found, self.config, self.splits.fingerprint)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "store"}

    def run(self, watcher: Watcher, count: WorkerCount) -> Store:
        """Run the base, opponents, and candidates until the total of trials is finished, by so many
        workers or one for each device, and return the study.

        Raises:
            SculptError: The base or an opponent failed, every candidate did, or every worker died.
        """
        store = self.store
        total = store.total if self.total is None else self.total
        try:
            with Interruption() as interruption:
                watcher.metric = self.config.task.shown
                watcher.run_started(total, store.finished)
                left = total - store.finished
                left += queue_opponents(store, dry=True) + queue_confirmation(store, dry=True)
                workers = self._number_of_workers(count, watcher, interruption) if left > 0 else 0
                workers = min(workers, left)
                if workers > 1 or (count.apart and workers == 1):
                    self._run_workers(watcher, interruption, workers)
                # By itself; or the rest, should the others have left any.
                self.worker(0, watcher, interruption).run(self.total)
        finally:
            watcher.run_finished()
        return store

    def worker(self, number: int, watcher: Watcher, interruption: Interruption) -> Worker:
        """Return a worker of this process, by its number on this machine, from 1; 0 is the process
        that started the others."""
        load_plugins(self.config.plugins, self.trusted)
        _silence_optuna()
        device = self.device_of(number)
        use_device(device)
        self.store.candidates.sampler = make_sampler(self.config)
        return Worker(self.store, self.splits.to(device), self.budget, watcher, interruption)

    def device_of(self, number: int) -> torch.device:
        """Return the device of a worker; see `worker`."""
        return self.devices[max(0, number - 1) % len(self.devices)]

    def _number_of_workers(
        self, count: WorkerCount, watcher: Watcher, interruption: Interruption
    ) -> int:
        if count.workers is not None:
            return count.workers
        each = count.trials_per_device
        if each == "auto":
            # On the first device; the others are taken to be of the same kind.
            with interruption.at_once():
                measured = measure_concurrency(self.config, self.splits.to(self.devices[0]))
            watcher.message(str(measured))
            each = measured.best
        return each * len(self.devices)

    def _run_workers(self, watcher: Watcher, interruption: Interruption, count: int) -> None:
        """Let workers in processes of their own run trials, and replace those that die."""
        with worker_processes(count, _run_trials, self) as workers:
            working: dict[Any, WorkerProcess] = {worker.connection: worker for worker in workers}
            last: dict[int, str] = {}
            deaths: Counter[int] = Counter()  # since the last trial that finished
            given_up = []
            while working:
                interruption.check()
                for connection in wait(list(working), LOOK_SECONDS):
                    worker = working[connection]
                    number = worker.number
                    watcher.from_worker(number)
                    try:
                        last[number], arguments = worker.receive()
                    except (EOFError, OSError):
                        del working[connection]
                        if problem := worker.why_it_ended():
                            watcher.worker_lost(problem)
                            deaths[number] += 1
                            if deaths[number] > MOST_REPLACEMENTS:
                                given_up.append(problem)
                                continue
                            worker.start()
                            working[worker.connection] = worker
                            last.pop(number, None)
                        continue
                    if last[number] == "trial_finished":
                        deaths[number] = 0
                    # That one waits for another of these workers is no news.
                    all_wait = all(last.get(w.number) == "waiting" for w in working.values())
                    if last[number] != "waiting" or all_wait:
                        getattr(watcher, last[number])(*arguments)
        watcher.from_worker(0)
        if len(given_up) == count:
            raise SculptError(
                f"a worker must live to the end, but all {count} died: {'; '.join(given_up)}. If "
                "memory ran out, lower --workers or --trials-per-device; the same command goes on"
            )


class _Reporter(Watcher):
    """Sends all events to the process that started this one."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Watcher, name):
            return super().__getattribute__(name)
        return partial(self._tell, name)

    def _tell(self, name: str, *arguments: Any) -> None:
        with suppress(OSError):  # the parent has ended, and this process is about to be stopped
            self._connection.send((name, arguments))


def _run_trials(connection: Connection, number: int, session: Session) -> None:
    """Run trials in this process until none is left to run."""
    with Interruption() as interruption:
        try:
            session.worker(number, _Reporter(connection), interruption).run(session.total)
        except LostDeviceError as error:
            sys.exit(str(error))  # replaced by another process, for which the device may compute


def _check_machine(config: Study, devices: Sequence[torch.device]) -> None:
    """Refuse a study that cannot be trained on these devices, or whose objectives cannot be
    measured here, by an InputError."""
    for device in devices:
        resolve_precision(config.training.precision, device)
    measures = devices and "latency" in config.search.objectives
    if measures and (missing := missing_runtime(config.search.latency_runtime)):
        raise InputError(
            f"search.latency_runtime must be one that is there, but "
            f"{config.search.latency_runtime} is not: {missing}"
        )


def _silence_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _of_the_machine(stored: Study, local: Document) -> Overrides:
    """Return the settings `OF_THE_MACHINE` of a local study file, for the data sets of a study."""
    before = stored.model_dump()
    names = {key: f"{key.rpartition('.')[0]}.name" for key in OF_THE_MACHINE}
    found = {key: lookup(local, key) for key in OF_THE_MACHINE}
    return {
        key: value
        for key, value in found.items()
        if value is not None and lookup(local, names[key]) == lookup(before, names[key])
    }


def _with_overrides(stored: Study, overrides: Overrides) -> Study:
    if not overrides:
        return stored
    document = stored.model_dump()
    for key, value in overrides.items():
        assign(document, key, value)
    if faults := document_faults(document):
        raise ConfigError("\n".join(faults))
    return Study.model_validate(document)
