"""`sculpt run`, interrupted or killed at random moments, against one that is left alone.

    python tests/search/interrupted_runs.py --runs 50 --stops 4

Prints each run, and exits with 1 if a configuration, an epoch's loss or an error differs in a bit.
Each run is forked from one process that has imported everything: the moments fall into the study.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

import sculpt
from sculpt.cli import main
from studies import write_study

SETTINGS = {
    "training__epochs": 8,
    "training__translate": 1,
    "search__trials": 3,
    "search__replicates": 1,
    "search__checkpoint_seconds": 0,
}


def start(folder, log):
    """Start the study of a folder as a command of its own, and return its process."""
    if (process := os.fork()) == 0:
        code = 1
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(folder)
            sys.argv = ["sculpt", "run", "tiny.yaml", "--device", "cpu"]
            main()
            code = 0
        except KeyboardInterrupt:  # before the command has begun
            code = 130
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(code)
    return process


def run(folder, moments, stop, settings):
    """Run a study to its end, stopped after these seconds each time; return how often it was."""
    folder.mkdir()
    write_study(folder, **settings)
    for stopped, seconds in enumerate([*moments, float("inf")]):
        process, end = start(folder, folder / "log"), time.monotonic() + seconds
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(process, stop)
                ended = os.waitpid(process, 0)
                break
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(ended[1])
        if code == 0:
            return stopped
        if code not in (130, -stop):
            raise SystemExit(f"exit code {code}: {(folder / 'log').read_text()}")
    raise SystemExit("a run without a stop must end by itself")


def outcome(folder):
    """Return the records of a study by configuration, without times."""
    results = sculpt.open_results(folder / "tiny.yaml")
    records = [results.record(number) for number in results.complete["trial"]]
    return {str(record["params"]): _untimed(record["runs"]) for record in records}


def _untimed(value):
    if isinstance(value, dict):
        kept = value.items()
        return {k: _untimed(v) for k, v in kept if "second" not in k and k != "resumed_at"}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


def differences(one, other, path=""):
    """Say where two documents differ, the first few places."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        pairs = [(f"{path}/{key}", one.get(key), other.get(key)) for key in keys]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        both = zip(one, other, strict=True)
        pairs = [(f"{path}/{place}", *pair) for place, pair in enumerate(both)]
    else:
        return [] if one == other else [f"{path}: {one!s:.200} != {other!s:.200}"]
    return [line for name, *pair in pairs for line in differences(*pair, name)][:20]


def compare(runs, stops, kill, seed, settings):
    """Print how each of the runs ended; return how many differ from one that was left alone."""
    chance, differ = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        begin = time.monotonic()
        run(Path(name, "whole"), [], signal.SIGINT, settings)
        whole, seconds = outcome(Path(name, "whole")), time.monotonic() - begin
        for number in range(1, runs + 1):
            folder = Path(name, str(number))
            moments = [chance.uniform(0, seconds / (1 + stops / 3)) for _ in range(stops)]
            stopped = run(folder, moments, signal.SIGKILL if kill else signal.SIGINT, settings)
            found = outcome(folder)
            differ += found != whole
            how = "equal" if found == whole else f"DIFFERS: {'; '.join(differences(whole, found))}"
            print(f"run {number}: stopped {stopped} times, {how}", flush=True)
    print(f"{runs} runs, {differ} differ; {torch.get_num_threads()} threads")
    return differ


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--stops", type=int, default=4, help="stops of each run, at most")
    parser.add_argument("--kill", action="store_true", help="SIGKILL in place of SIGINT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-seconds", type=float, default=0)
    arguments = parser.parse_args()
    chosen = SETTINGS | {"search__checkpoint_seconds": arguments.checkpoint_seconds}
    sys.exit(compare(arguments.runs, arguments.stops, arguments.kill, arguments.seed, chosen) > 0)
