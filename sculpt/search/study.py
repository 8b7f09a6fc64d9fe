"""The run of a study: everything is made ready and checked, then a worker goes to work."""

from collections.abc import Callable

import optuna

from sculpt.config import Study
from sculpt.errors import InputError
from sculpt.export.runtimes import missing_runtime
from sculpt.search.feasibility import total_trials
from sculpt.search.interruption import Interruption
from sculpt.search.preparation import choose_device, describe_data, load_data
from sculpt.search.progress import Watcher
from sculpt.search.samplers import make_sampler, resolve_sampler
from sculpt.search.store import Store, start_store
from sculpt.search.worker import Worker
from sculpt.training.memory import keep_freed_memory
from sculpt.training.precision import resolve_precision
from sculpt.trial import resolve_budget


def run_study(
    config: Study,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
    run: Callable[[Worker, int], None] | None = None,
) -> Store:
    """Start a study, or go on with it, until its total of trials is finished.

    Everything is checked before anything is written. A trial that fails by itself is recorded
    and counts; one that was interrupted is run again with the same configuration.

    Args:
        config:
            The study.
        device:
            A torch device, or `auto`.
        watcher:
            Is told of the progress.
        run:
            Runs a worker's trials up to a total; by default `Worker.run`, one after another.

    Raises:
        InputError: the study cannot be run as it is.
        SculptError: the base failed, or every candidate did.
    """
    watcher = watcher or Watcher()
    target = choose_device(device)
    resolve_precision(config.training.precision, target)
    if target.type == "cpu":
        keep_freed_memory()
    spec = describe_data(config)
    budget = resolve_budget(config, spec)
    total = total_trials(config, spec)
    resolve_sampler(config)
    _check_runtime(config)
    splits = load_data(config).to(target)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    store = start_store(config, splits.fingerprint, total)
    store.candidates.sampler = make_sampler(
        config, len(store.candidates.get_trials(deepcopy=False))
    )
    try:
        with Interruption() as interruption:
            (run or Worker.run)(Worker(store, splits, budget, watcher, interruption), total)
    finally:
        watcher.run_finished()
    return store


def _check_runtime(config: Study) -> None:
    if "latency" not in config.search.objectives:
        return
    if missing := missing_runtime(config.search.latency_runtime):
        raise InputError(
            f"search.latency_runtime must be one that is there, but "
            f"{config.search.latency_runtime} is not: {missing}"
        )
