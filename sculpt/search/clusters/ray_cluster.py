"""A study on a Ray cluster: Ray starts the workers where there is room, and replaces lost ones.

Ray knows nothing of trials. Its tasks are workers that join the study, and are coordinated by the
study's storage, as everywhere. Their progress is read from there, too.
"""

import itertools
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any, NamedTuple, TypedDict

import torch
from optuna.trial import FrozenTrial

from sculpt.config import Study
from sculpt.errors import InputError, SculptError, StorageError
from sculpt.search.clusters.invitation import Invitation, invite
from sculpt.search.progress import Watcher
from sculpt.search.session import Session
from sculpt.search.workers.devices import WorkerCount, choose_device
from sculpt.search.workers.interruption import Interruption
from sculpt.storage.attributes import INFEASIBLE, PROBLEMS
from sculpt.storage.failures import in_one_line
from sculpt.storage.sqlite_file import SqliteFile
from sculpt.storage.store import PARTS, Store
from sculpt.storage.study_storage import database_at
from sculpt.storage.trials import trial_states

LOOK_SECONDS = 1.0
"""Between looks into the storage."""

CONNECT_SECONDS = 10.0
"""How long a cluster may take to answer."""

STOP_SECONDS = 15.0
"""How long workers may take to put their things in order."""

UNFINISHED = ("running", "queued")

Label = int | str
"""A candidate's number; `base`, or `base 1` for another attempt at it; `confirm 3`."""


class Node(TypedDict):
    """The entries that are read of `ray.nodes`' description of a machine."""

    Alive: bool
    Resources: Mapping[str, float]
    NodeManagerHostname: str


class WorkerResources(NamedTuple):
    """The number of workers, and each one's share of the cluster."""

    workers: int
    threads: int
    cpus: float
    gpus: float


def run_on_ray(
    config: Study, address: str, device: str, watcher: Watcher | None, count: WorkerCount
) -> Store:
    """Start a study, or go on with it, by workers that Ray starts, until its total is finished; see
    `sculpt.run`."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"with --ray, --device must be auto, cpu or cuda, because Ray chooses the GPU, but got "
            f"{device!r}"
        )
    if count.trials_per_device == "auto":
        raise InputError(
            "with --ray, --trials-per-device must be a number, but got auto; measure it on one "
            "machine (sculpt run STUDY --trials-per-device auto)"
        )
    ray = _import_ray()
    watcher = watcher or Watcher()
    with _connected(ray, address):
        _refuse_lone_file(config, ray.nodes())
        on_gpu = device == "cuda" or (device == "auto" and "GPU" in ray.cluster_resources())
        resources = share_out(ray.nodes(), count, on_gpu=on_gpu)
        # The devices of this machine are none of the workers'; but every machine has this one.
        store = Session.start(config, [] if on_gpu else [choose_device("cpu")]).store
        name, cpus, gpus = f"sculpt {config.study}", resources.cpus, resources.gpus
        worker = ray.remote(_work).options(num_cpus=cpus, num_gpus=gpus, max_retries=-1, name=name)
        given = invite(config, "cuda" if on_gpu else "cpu", WorkerCount()), resources.threads
        try:
            with Interruption() as interruption:
                watcher.run_started(store.total, store.finished)
                poller = ProgressPoller(store, watcher)
                tasks = [worker.remote(*given) for _ in range(resources.workers)]
                try:
                    _wait(ray, tasks, poller, interruption)
                finally:
                    _cancel(ray, tasks)
        finally:
            watcher.run_finished()
    return store


def share_out(nodes: list[Node], count: WorkerCount, *, on_gpu: bool) -> WorkerResources:
    """Return the resources of the workers; InputError if there is no GPU, or no CPU core.

    By default as many workers as there is room for: one on each GPU, or on each CPU core.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(found.get("CPU", 0)) for found in resources if found.get("CPU", 0) >= 1]
    graphics = int(sum(found.get("GPU", 0) for found in resources))
    if on_gpu and not graphics:
        raise InputError("--device cuda must find a GPU in the Ray cluster, but it has none")
    if not cpus:
        raise InputError(
            "the Ray cluster must have a CPU core for the workers, but it has none; add a node"
        )
    each = count.trials_per_device if isinstance(count.trials_per_device, int) else 1
    workers = count.workers or (graphics * each if on_gpu else sum(cpus))
    share = sum(cpus) / workers
    # A worker must fit on one node, also on the smallest: others may be lost.
    threads = max(1, min(int(share), *cpus))
    # Ray counts in ten-thousandths.
    return WorkerResources(
        workers,
        threads,
        cpus=threads if share >= 1 else int(share * 10_000) / 10_000,
        gpus=int(10_000 / each) / 10_000 if on_gpu else 0,
    )


class ProgressPoller:
    """Reads a study's storage, and tells a watcher the changes since the last look."""

    def __init__(self, store: Store, watcher: Watcher):
        self._store, self._watcher = store, watcher
        self._rows: dict[Label, int] = {}  # trials that are running, each in a row of its own
        self._ended = {label for label, _, state in self._trials() if state not in UNFINISHED}

    def look(self) -> None:
        """Tell what has changed."""
        for label, trial, state in self._trials():
            if state == "running" and label not in self._rows:
                self._tell_start(label, trial)
            elif state not in UNFINISHED and label not in self._ended:
                self._ended.add(label)
                self._tell_end(label, trial, state)

    def _tell_start(self, label: Label, trial: FrozenTrial) -> None:
        used = self._rows.values()
        self._rows[label] = next(row for row in itertools.count(1) if row not in used)
        self._watcher.from_worker(self._rows[label])
        self._watcher.trial_started(label, trial.params, None)

    def _tell_end(self, label: Label, trial: FrozenTrial, state: str) -> None:
        seen = label in self._rows
        if trial.user_attrs.get(INFEASIBLE) or (state == "interrupted" and not seen):
            self._rows.pop(label, None)  # it takes no part in the total
            return
        if not seen:  # it was so short that it was never seen running
            self._tell_start(label, trial)
        self._watcher.from_worker(self._rows.pop(label))
        if state == "interrupted":
            self._watcher.worker_lost(f"a worker of {label} was lost or stopped")
            return
        problem = next(filter(None, map(trial.user_attrs.get, PROBLEMS)), None)
        error = trial.user_attrs.get("val_error_mean") if state == "complete" else None
        self._watcher.trial_finished(label, error, problem or (state if error is None else None))

    def _trials(self) -> Iterator[tuple[Label, FrozenTrial, str]]:
        """Yield the label of each trial, itself and its state."""
        for part, end in PARTS.items():
            study, role = getattr(self._store, part), end.strip("/")
            trials = study.get_trials(deepcopy=False) if study else []
            states = trial_states(trials)
            for trial in trials:
                label = f"{role} {trial.number}" if role else trial.number
                yield "base" if label == "base 0" else label, trial, states[trial.number]


def _work(invitation: Invitation, threads: int) -> None:
    """Join the study; Ray runs this in a process of its own."""
    torch.set_num_threads(threads)
    invitation(Watcher())


def _wait(ray: ModuleType, tasks: list[Any], poller: ProgressPoller, stop: Interruption) -> None:
    left = list(tasks)
    while left:
        stop.check()
        ended, left = ray.wait(left, timeout=LOOK_SECONDS)
        poller.look()
        for task in ended:
            try:
                ray.get(task)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, SculptError):
                    raise error.cause from None
                raise SculptError(f"a worker must not fail, but did: {error}") from None
            except ray.exceptions.RayError as error:
                raise SculptError(
                    f"Ray must keep its workers running, but: {error}; the same command goes on"
                ) from None


def _cancel(ray: ModuleType, tasks: list[Any]) -> None:
    """Stop the workers, as Ctrl-C would; those that have ended are left alone."""
    _, running = ray.wait(tasks, num_returns=len(tasks), timeout=0)
    for task in running:
        ray.cancel(task)
    if running:
        ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS)


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise InputError(
            "--ray must find Ray, but it is not installed here. Install it with: "
            "pip install 'sculpt[ray]'"
        ) from None
    return ray


@contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    """Connect to Ray, and leave it again unless the caller was connected before."""
    if ray.is_initialized():
        yield
        return
    options = {"include_dashboard": False} if address == "local" else {}
    # Ray's messages of lost nodes, also when it ends, are no part of a document on stdout.
    with redirect_stdout(sys.stderr):
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level="error", **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                "--ray must be local, auto or the address of a Ray cluster that can be reached, "
                f"but {address!r} is not: {in_one_line(error)}"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise an OSError if there is no answer: Ray itself would go on asking for many minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _refuse_lone_file(config: Study, nodes: list[Node]) -> None:
    """Refuse a SQLite file where workers would be on other machines."""
    here = socket.gethostname()
    elsewhere = {node["NodeManagerHostname"] for node in nodes if node["Alive"]} - {here}
    if elsewhere and isinstance(database_at(config.storage_url), SqliteFile):
        raise StorageError(
            "workers on several machines must share a database server, but the storage is the "
            f"SQLite file {config.storage_url}, and {', '.join(sorted(elsewhere))} cannot use it; "
            "give a PostgreSQL database (--storage postgresql://USER@HOST/NAME)"
        )
