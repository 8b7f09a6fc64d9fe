"""How much faster two workers are than one, on one machine: trials per second, side by side.

    OMP_NUM_THREADS=1 python tests/benchmarks/workers.py --turns 3

Each trial is trained on one thread. Both numbers of workers take turns on the same study, each time
anew, so that noise falls on both alike; medians count. Start-up is the time until the first trial
begins, and what comes after the last one; without it the time of the trials alone is left.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported, also in the workers

import sculpt
from sculpt.search.progress import Watcher

STUDY = Path(__file__).resolve().parents[2] / "studies" / "digits_shapes.yaml"

SPACE = {"parameters": {"widening": {"low": 2.0, "high": 3.9, "step": 0.1}}}
"""Many points that cost about the same, so that no worker is left with a long last one."""


class Stopwatch(Watcher):
    """Takes the time of the first beginning and the last end of a trial."""

    def __init__(self) -> None:
        self.start = perf_counter()
        self.first: float | None = None
        self.last = 0.0

    def trial_started(self, *told: object) -> None:
        self.first = self.first or perf_counter()

    def trial_finished(self, *told: object) -> None:
        self.last = perf_counter()


def measure(workers: int, trials: int, epochs: int) -> tuple[float, float]:
    """Return the seconds of a whole run, and those between its first trial and its last."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            "storage": str(Path(folder, "study.db")),
            "space": SPACE,
            "search.trials": trials,
            "search.sampler": "random",
            "search.replicates": 1,
            "training.epochs": epochs,
        }
        watch = Stopwatch()
        sculpt.run(STUDY, overrides=overrides, device="cpu", workers=workers, watcher=watch)
        seconds = perf_counter() - watch.start
    assert watch.first is not None
    return seconds, watch.last - watch.first


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trials", type=int, default=13)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(options.turns):
        for workers, rows in found.items():
            rows.append(measure(workers, options.trials, options.epochs))
            print(f"{workers} worker(s): {rows[-1][0]:.1f} s", file=sys.stderr)
    print(f"{options.trials} trials of {options.epochs} epochs, medians of {options.turns} turns")
    rates = {}
    for workers, rows in found.items():
        whole, trials = (median(column) for column in zip(*rows, strict=True))
        rates[workers] = (options.trials / whole, options.trials / trials)
        print(
            f"{workers} worker(s): {whole:.1f} s, {rates[workers][0]:.3f} trials/s; without "
            f"start-up {trials:.1f} s, {rates[workers][1]:.3f} trials/s"
        )
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"2 workers / 1: {ratios[0]:.2f}; without start-up {ratios[1]:.2f} (at least 1.6 wanted)")


if __name__ == "__main__":
    main()
