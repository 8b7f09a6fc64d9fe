"""Seconds that a study takes to answer: whole commands, beside Optuna's own reading.

    python tests/benchmarks/asking.py --trials 10000 --repeats 5
    python tests/benchmarks/asking.py --trials 9          # as many as the digits study has

The study is made up: one real trial of `studies/digits.yaml`, copied with other errors and costs.
"""

import argparse
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter

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
        sculpt.run(STUDY, overrides=changes)
        with closing(sqlite3.connect(storage)) as database:
            multiply(database, options.trials)
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


def multiply(database: sqlite3.Connection, count: int) -> None:
    """Copy the only candidate of a study until there are so many, each with numbers of its own."""
    (source,) = database.execute(
        "SELECT trial_id FROM trials JOIN studies USING (study_id) WHERE study_name = 'digits'"
    ).fetchone()
    last = database.execute("SELECT max(trial_id) FROM trials").fetchone()[0]
    copies = range(last + 1, last + count)
    database.executemany(
        "INSERT INTO trials SELECT ?, ?, study_id, state, datetime_start, datetime_complete "
        "FROM trials WHERE trial_id = ?",
        [(trial, number, source) for number, trial in enumerate(copies, start=1)],
    )
    attributes = dict(
        database.execute(
            "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?", (source,)
        )
    )
    columns = {
        "trial_params": "param_name, param_value, distribution_json",
        "trial_values": "objective, value, value_type",
        "trial_system_attributes": "key, value_json",
    }
    for table, names in columns.items():
        rows = database.execute(f"SELECT {names} FROM {table} WHERE trial_id = ?", (source,))
        rows = rows.fetchall()
        places = ", ".join("?" * (1 + names.count(",") + 1))
        database.executemany(
            f"INSERT INTO {table} (trial_id, {names}) VALUES ({places})",
            [(trial, *row) for trial in copies for row in rows],
        )
    database.executemany(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
        different(attributes, copies),
    )
    for objective, name in enumerate(("val_error", "kept_macs")):
        database.execute(
            "UPDATE trial_values SET value = (SELECT json_extract(value_json, ?) "
            "FROM trial_user_attributes AS found WHERE found.trial_id = trial_values.trial_id "
            "AND key = 'objectives') WHERE objective = ? AND trial_id > ?",
            (f"$.{name}", objective, last),
        )
    database.commit()


def different(attributes: dict[str, str], copies: range) -> Iterator[tuple[int, str, str]]:
    """Return the attributes of each copy: errors and costs drawn at random, the rest as it is."""
    draw = random.Random(0)
    for trial in copies:
        error, macs = draw.uniform(0.02, 0.5), draw.uniform(1e4, 1e6)
        objectives = json.loads(attributes["objectives"]) | {"val_error": error, "kept_macs": macs}
        changed = {
            "objectives": objectives | {"macs": draw.uniform(1e5, 1e7)},
            "val_error_mean": error,
            "val_errors": [error + draw.gauss(0, 0.01) for _ in range(3)],
            "kept_macs": macs,
        }
        texts = attributes | {key: json.dumps(value) for key, value in changed.items()}
        yield from ((trial, key, text) for key, text in texts.items())


if __name__ == "__main__":
    main()
