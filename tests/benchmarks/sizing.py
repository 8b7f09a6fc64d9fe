"""How many workers one storage feeds: measured for one worker here, simulated for up to 1,000.

    python tests/benchmarks/sizing.py --trials 5000 --server        # PostgreSQL; without: SQLite

Measured is what one trial asks of the storage, its training left out: the seconds under the lock
(one worker at a time claims a trial, is suggested its parameters and looks for dead ones), and the
seconds outside of it. Simulated are workers that train for a while (log-normal, a third of
spread), queue for the lock, and queue for the server's processors; heartbeats are counted in. All
of a worker's seconds outside the lock are taken for the server's, which is more than it has.
"""

import argparse
import heapq
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import optuna
import overhead
import torch

from sculpt.storage.study_storage import StudyStorage

WORKERS = (1, 4, 16, 64, 250, 1000)
SECONDS = (10.0, 60.0, 600.0)
"""Of training, in the middle."""
HEARTBEAT_SECONDS = 10.0
TRIALS_EACH = 30


def main() -> None:
    """Measure, simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=5000, help="finished already")
    parser.add_argument("--each", type=int, default=30, help="trials that are measured")
    parser.add_argument("--server", action="store_true", help="PostgreSQL instead of SQLite")
    parser.add_argument("--processors", type=int, default=4, help="that the server is to have")
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    locked, other, heartbeat = measure(options)
    # A file has one writer at a time.
    processors = options.processors if options.server else 1
    print(
        f"{'PostgreSQL' if options.server else 'SQLite'}, {options.trials:,} finished trials: "
        f"{1e3 * locked:.0f} ms under the lock, {1e3 * other:.0f} ms outside, "
        f"{1e3 * heartbeat:.1f} ms a heartbeat"
    )
    print("share of the time that workers train, by the seconds a trial trains")
    print("workers " + "".join(f"{seconds:>8.0f} s" for seconds in SECONDS))
    for workers in WORKERS:
        shares = [
            simulate(workers, seconds, locked, other, heartbeat, processors) for seconds in SECONDS
        ]
        print(f"{workers:7} " + "".join(f"{share:>9.0%} " for share in shares))


def measure(options: Any) -> tuple[float, float, float]:
    """Return seconds under the lock and outside of it for a trial, and those of a heartbeat."""
    with (
        tempfile.TemporaryDirectory() as folder,
        overhead.databases(options.server, folder) as database,
    ):
        os.chdir(folder)
        trained = overhead.train_once(database("first"))
        url = database("sizing")
        overhead.fill_sculpt(url, trained, options.trials)
        held: list[float] = []
        marks: list[float] = []
        with timed_lock(held):
            overhead.run_sculpt(
                url,
                trained,
                options.each,
                1,
                lambda: (held.clear(), marks.append(time.perf_counter())),
            )
        seconds = (time.perf_counter() - marks[0]) / options.each
        locked = sum(held) / options.each
        worker = overhead.make_worker(overhead.study_at(url, 10**6), 1)
        storage, study = worker.store.storage, worker.store.candidates
        trial_id = storage.get_all_trials(study._study_id, deepcopy=False)[-1]._trial_id
        beats = []
        for _ in range(50):
            begin = time.perf_counter()
            storage.record_heartbeat(trial_id)
            beats.append(time.perf_counter() - begin)
        storage.close()
        return locked, seconds - locked, median(beats)


@contextmanager
def timed_lock(held: list[float]) -> Iterator[None]:
    """Keep the seconds for which the lock is held, each time that it is not held already."""
    lock = StudyStorage.lock
    depth = 0

    @contextmanager
    def timed(storage: StudyStorage) -> Iterator[None]:
        nonlocal depth
        with lock(storage):
            begin = time.perf_counter()
            depth += 1
            try:
                yield
            finally:
                depth -= 1
                if depth == 0:
                    held.append(time.perf_counter() - begin)

    StudyStorage.lock = timed  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        StudyStorage.lock = lock  # type: ignore[method-assign]


def simulate(
    workers: int, seconds: float, locked: float, other: float, heartbeat: float, processors: int
) -> float:
    """Return the share of their time that workers train."""
    draw = random.Random(0)
    # What heartbeats leave of the processors.
    left = processors - workers * heartbeat / HEARTBEAT_SECONDS
    if left <= 0:
        return 0.0
    other *= processors / left
    lock_free = 0.0
    free = [0.0] * processors
    # (time, worker, what comes next); workers come one after the other at first.
    events = [(draw.uniform(0, seconds), worker, "claim") for worker in range(workers)]
    heapq.heapify(events)
    trained = dict.fromkeys(range(workers), 0.0)
    begun = {worker: at for at, worker, _ in events}
    done = dict.fromkeys(range(workers), 0)
    ended = dict(begun)
    while events:
        now, worker, what = heapq.heappop(events)
        if what == "claim":
            lock_free = max(now, lock_free) + locked
            length = draw.lognormvariate(0, 0.33) * seconds
            trained[worker] += length
            heapq.heappush(events, (lock_free + length, worker, "write"))
            continue
        ready = heapq.heappop(free)
        finished = max(now, ready) + other
        heapq.heappush(free, finished)
        done[worker] += 1
        ended[worker] = finished
        if done[worker] < TRIALS_EACH:
            heapq.heappush(events, (finished, worker, "claim"))
    return sum(trained.values()) / sum(ended[w] - begun[w] for w in begun)


if __name__ == "__main__":
    main()
