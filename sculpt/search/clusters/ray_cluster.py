"""A study on a Ray cluster: Ray starts the workers where there is room, and replaces lost ones.

Ray knows nothing of trials. Its tasks are workers that join the study, and what
they do is coordinated by the study's storage, as everywhere.
"""

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypedDict

import torch

from sculpt.config import Study
from sculpt.errors import InputError, SculptError, StorageError
from sculpt.search.clusters.invitation import Invitation, invite
from sculpt.search.clusters.observer import Observer
from sculpt.search.images import choose_device
from sculpt.search.progress import Watcher
from sculpt.search.session import Session
from sculpt.search.storage.storage_url import is_sqlite, parse
from sculpt.search.store import Store
from sculpt.search.workers.devices import HowMany
from sculpt.search.workers.interruption import Interruption

LOOK_SECONDS = 1.0
"""Between looks into the storage."""

CONNECT_SECONDS = 10.0
"""How long a cluster may take to answer."""

STOP_SECONDS = 15.0
"""How long workers may take to put their things in order."""


class Node(TypedDict):
    """A machine of a cluster, as `ray.nodes` describes it; what is read of it."""

    Alive: bool
    Resources: Mapping[str, float]
    NodeManagerHostname: str


@dataclass(frozen=True)
class Room:
    """What each worker is given of the cluster."""

    workers: int
    threads: int
    cpus: float
    gpus: float


def run_on_ray(
    config: Study, address: str, device: str, watcher: Watcher | None, how_many: HowMany
) -> Store:
    """Start a study, or go on with it, by workers that Ray starts, until its total is finished.

    Args:
        config: The study.
        address: `local` starts Ray on this machine; else that of a cluster, or `auto`.
        device: `auto`, `cpu` or `cuda`; which GPU a worker gets is for Ray to say.
        watcher: Is told of the progress.
        how_many: Workers; by default as many as fit.

    Raises:
        InputError: the study cannot be run as it is, or not there.
        SculptError: the base failed, or every candidate did.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"with --ray, --device must be auto, cpu or cuda, because Ray chooses the GPU, but got "
            f"{device!r}"
        )
    if how_many.trials_per_device == "auto":
        raise InputError(
            "with --ray, --trials-per-device must be a number, but got auto; measure it on one "
            "machine (sculpt run STUDY --trials-per-device auto)"
        )
    ray = _import_ray()
    watcher = watcher or Watcher()
    with _connected(ray, address):
        _refuse_lone_file(config, ray.nodes())
        on_gpu = device == "cuda" or (device == "auto" and "GPU" in ray.cluster_resources())
        room = share_out(ray.nodes(), how_many, on_gpu=on_gpu)
        # The devices of this machine are none of the workers'; but every machine has this one.
        store = Session.start(config, [] if on_gpu else [choose_device("cpu")]).store
        invitation = invite(config, "cuda" if on_gpu else "cpu", HowMany())
        worker = ray.remote(_work).options(
            num_cpus=room.cpus, num_gpus=room.gpus, max_retries=-1, name=f"sculpt {config.study}"
        )
        try:
            with Interruption() as interruption:
                watcher.run_started(store.total, store.finished)
                observer = Observer(store, watcher)
                tasks = [worker.remote(invitation, room.threads) for _ in range(room.workers)]
                try:
                    _watch(ray, tasks, observer, interruption)
                finally:
                    _cancel(ray, tasks)
        finally:
            watcher.run_finished()
    return store


def share_out(nodes: list[Node], how_many: HowMany, *, on_gpu: bool) -> Room:
    """Say what each worker is given.

    Args:
        nodes: Of the cluster, as `ray.nodes` describes them.
        how_many: Workers, or trials on each GPU at a time; by default as many as there is room for:
            one on each GPU, or on each CPU core.
        on_gpu: Whether they train on GPUs.

    Raises:
        InputError: there is no GPU.
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
    each = how_many.trials_per_device if isinstance(how_many.trials_per_device, int) else 1
    workers = how_many.workers or (graphics * each if on_gpu else sum(cpus))
    share = sum(cpus) / workers
    # A worker must fit on one node, also on the smallest: others may be lost.
    threads = max(1, min(int(share), *cpus))
    # Ray counts in ten-thousandths.
    return Room(
        workers,
        threads,
        cpus=threads if share >= 1 else int(share * 10_000) / 10_000,
        gpus=int(10_000 / each) / 10_000 if on_gpu else 0,
    )


def _work(invitation: Invitation, threads: int) -> None:
    """Join the study; this is what Ray runs, in a process of its own."""
    torch.set_num_threads(threads)
    invitation.accept()


def _watch(ray: ModuleType, tasks: list[Any], observer: Observer, stop: Interruption) -> None:
    """Wait for all workers.

    Raises:
        SculptError: one of them failed.
    """
    left = list(tasks)
    while left:
        stop.check()
        ended, left = ray.wait(left, timeout=LOOK_SECONDS)
        observer.look()
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
    """Be connected to Ray, and leave it again unless a caller was connected before."""
    if ray.is_initialized():
        yield
        return
    options = {"include_dashboard": False} if address == "local" else {}
    # What Ray prints of lost nodes, also when it ends, is no part of a document on stdout.
    with redirect_stdout(sys.stderr):
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level="error", **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                "--ray must be local, auto or the address of a Ray cluster that can be reached, "
                f"but {address!r} is not: {' '.join(str(error).split())}"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise an OSError where nobody answers: Ray itself would go on asking for many minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _refuse_lone_file(config: Study, nodes: list[Node]) -> None:
    """Refuse a SQLite file where workers would be on other machines."""
    here = socket.gethostname()
    elsewhere = {node["NodeManagerHostname"] for node in nodes if node["Alive"]} - {here}
    if elsewhere and is_sqlite(parse(config.storage_url)):
        raise StorageError(
            "workers on several machines must share a database server, but the storage is the "
            f"SQLite file {config.storage_url}, and {', '.join(sorted(elsewhere))} cannot use it; "
            "give a PostgreSQL database (--storage postgresql://USER@HOST/NAME)"
        )
