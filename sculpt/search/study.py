"""The run of a study: everything is made ready and checked, then workers go to work."""

from collections.abc import Sequence

import optuna
import torch

from sculpt.config import Study
from sculpt.errors import InputError
from sculpt.export.runtimes import missing_runtime
from sculpt.search.preparation import describe_data, load_data
from sculpt.search.progress import Watcher
from sculpt.search.sampling.feasibility import total_trials
from sculpt.search.sampling.samplers import resolve_sampler
from sculpt.search.store import Store, start_store
from sculpt.search.workers.devices import choose_devices
from sculpt.search.workers.together import HowMany, run_workers
from sculpt.search.workers.work import Work
from sculpt.training.precision import resolve_precision
from sculpt.trial import resolve_budget


def run_study(
    config: Study,
    *,
    device: str = "auto",
    watcher: Watcher | None = None,
    how_many: HowMany | None = None,
) -> Store:
    """Start a study, or go on with it, until its total of trials is finished.

    Everything is checked before anything is written. A trial that fails by itself is recorded
    and counts; one that was interrupted is run again with the same configuration.

    Args:
        config:
            The study.
        device:
            A torch device, several separated by commas, or `auto`.
        watcher:
            Is told of the progress.
        how_many:
            Workers; by default one for each device.

    Raises:
        InputError: the study cannot be run as it is.
        SculptError: the base failed, or every candidate did.
    """
    how_many = how_many or HowMany()
    devices = choose_devices(device, several=how_many.several)
    store, work = begin_study(config, devices)
    run_workers(store, work, watcher or Watcher(), how_many)
    return store


def begin_study(config: Study, devices: Sequence[torch.device]) -> tuple[Store, Work]:
    """Check a study, and make what is missing where it is kept; train nothing.

    Args:
        config:
            The study.
        devices:
            Those of this machine that will train it; none where others do.

    Raises:
        InputError: the study cannot be run as it is; nothing was written.
    """
    check_machine(config, devices)
    spec = describe_data(config)
    budget = resolve_budget(config, spec)
    total = total_trials(config, spec)
    resolve_sampler(config)
    splits = load_data(config)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    store = start_store(config, splits.fingerprint, total)
    return store, Work(config, splits, list(devices), budget, total)


def check_machine(config: Study, devices: Sequence[torch.device]) -> None:
    """Refuse what a study needs and this machine has not.

    Raises:
        InputError: it cannot train on these devices, or cannot measure what is asked for.
    """
    for device in devices:
        resolve_precision(config.training.precision, device)
    measures = devices and "latency" in config.search.objectives
    if measures and (missing := missing_runtime(config.search.latency_runtime)):
        raise InputError(
            f"search.latency_runtime must be one that is there, but "
            f"{config.search.latency_runtime} is not: {missing}"
        )
