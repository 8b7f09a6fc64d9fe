"""A parent whose workers get killed, started by test_chaos.py.

    python chaos_parent.py STUDY.yaml FOLDER WORKERS KILLS SEED

It keeps that many workers at one study until it is done, and kills one of them with SIGKILL
again and again, at random moments that are spread over the whole study. In FOLDER there is a line
in `finished` for every trial that ended, and in `errors` all that the workers wrote to stderr.

Workers are forked from this process, which has imported everything and computed nothing: an
import takes seconds, and two dozen are needed.
"""

import gc
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import alembic.command  # noqa: F401 - these two otherwise by every worker
import psycopg  # noqa: F401
import torch

import sculpt
from sculpt.launch import run
from sculpt.search.progress import Watcher
from sculpt.storage import trials

LOOK_SECONDS = 0.02


class Log(Watcher):
    """Writes a line for each trial that ends, in one piece with those of other processes."""

    def trial_finished(
        self, label: int | str, val_error: float | None, problem: str | None
    ) -> None:
        with open(folder / "finished", "a") as file:
            file.write(f"{label}\t{problem}\n")


def work() -> None:
    """Do in a forked process what `sculpt run` does, and leave it."""
    code = 1
    try:
        os.setsid()
        errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(errors, sys.stderr.fileno())
        torch.set_num_threads(1)
        run(study, watcher=Log())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def fork() -> int:
    """Start a worker, and return its number."""
    number = os.fork()
    if number == 0:
        work()
    return number


if __name__ == "__main__":
    study, folder = Path(sys.argv[1]), Path(sys.argv[2])
    count, kills, seed = map(int, sys.argv[3:])
    chance = random.Random(seed)
    # Chance may hit one trial more often than the product is patient with.
    trials.MAX_RETRIES = kills
    total = sculpt.load_study(study).search.trials
    for name in ("finished", "errors"):
        (folder / name).touch()
    gc.freeze()  # or workers would walk through all that was imported after every trial
    alive = {fork() for _ in range(count)}
    killed: set[int] = set()
    due = 0.0
    while alive:
        time.sleep(LOOK_SECONDS)
        finished = (folder / "finished").read_text().count("\n")
        # The first kill comes when the workers are still at the base.
        if len(killed) < kills and finished >= len(killed) * total // (kills + 2):
            due = due or time.monotonic() + chance.uniform(0.1, 1.0)
            if time.monotonic() >= due:
                due = 0.0
                victim = chance.choice(sorted(alive))
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
        for worker in sorted(alive):
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                alive.remove(worker)
                if worker in killed:
                    alive.add(fork())
                elif status:
                    print(f"worker {worker} ended with {os.waitstatus_to_exitcode(status)}")
    print(f"killed {len(killed)}")
