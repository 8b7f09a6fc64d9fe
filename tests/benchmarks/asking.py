"""Seconds that a study takes to answer: whole commands, beside Optuna's own reading.

    python tests/benchmarks/asking.py --trials 10000 --repeats 5
    python tests/benchmarks/asking.py --trials 3          # as many as the digits study has

The study is made up: one real trial of `studies/digits.yaml`, copied with other errors and costs.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from overhead import multiply

import sculpt

STUDY = Path(__file__).resolve().parents[2] / "studies" / "digits.yaml"

QUESTIONS = {
    "check": ["check", str(STUDY)],
    "status": ["status", "digits"],
    "pareto": ["pareto", "digits"],
    "pareto, three objectives": ["pareto", "digits", "--objectives", "val_error,kept_macs,macs"],
    "pareto --where": ["pareto", "digits", "--where", "widening > 2 and kept_macs < 5e5"],
    "pareto --format json --dominated": ["pareto", "digits", "--dominated", "--format", "json"],
    "show": ["show", "digits", "0"],
    "rank": ["rank", "digits", "--format", "json"],
    "report": ["report", "digits", "--output", "report.html"],
}

OPTUNA = """
import sys, optuna
study = optuna.load_study(study_name="digits", storage=f"sqlite:///{sys.argv[1]}")
print(len(study.best_trials))
"""
"""What there is without sculpt: the front of the objectives that were searched by."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder, "digits.db")
        changes = {"storage": str(storage), "search.trials": 2, "search.replicates": 3}
        store = sculpt.run(STUDY, overrides=changes).store
        multiply(store.storage, store.candidates, options.trials, different)
        commands = {
            name: [sys.executable, "-m", "sculpt", *question, "--storage", str(storage)]
            for name, question in QUESTIONS.items()
        } | {
            "--help": [sys.executable, "-m", "sculpt", "--help"],
            "Optuna's best_trials": [sys.executable, "-c", OPTUNA, str(storage)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        processor: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for name, command in commands.items():  # in turn, so that noise falls on all alike
                start, before = perf_counter(), processor_seconds()
                subprocess.run(command, check=True, capture_output=True, cwd=folder)
                seconds[name].append(perf_counter() - start)
                processor[name].append(processor_seconds() - before)
    print(f"{options.trials:,} trials; seconds of a whole command, median (lowest to highest)")
    for name, found in seconds.items():
        spread = f"({min(found):.2f} to {max(found):.2f})"
        used = median(processor[name])
        print(f"{name:34} {median(found):6.2f}  {spread:18} processor {used:6.2f}")


def processor_seconds() -> float:
    """Processor time of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def different(table: str, row: dict[str, Any], place: int) -> dict[str, Any]:
    """Give a copied trial errors and costs drawn at random; the rest stays as it is."""
    draw = random.Random(place)
    error, macs, dense = (draw.uniform(*ends) for ends in ((0.02, 0.5), (1e4, 1e6), (1e5, 1e7)))
    if table == "values":
        row["value"] = (error, macs)[row["objective"]]
    elif table == "user_attributes":
        errors = [error + draw.gauss(0, 0.01) for _ in range(3)]
        changed = {"val_error_mean": error, "val_errors": errors, "kept_macs": macs}
        if row["key"] == "objectives":
            objectives = {"val_error": error, "kept_macs": macs, "macs": dense}
            changed["objectives"] = json.loads(row["value_json"]) | objectives
        if row["key"] in changed:
            row["value_json"] = json.dumps(changed[row["key"]])
    return row


if __name__ == "__main__":
    main()
