"""Beginning a study: all that it needs is checked, and made, before any worker goes to work."""

from collections.abc import Sequence

import optuna
import torch

from sculpt.config import Study
from sculpt.errors import InputError
from sculpt.export.runtimes import missing_runtime
from sculpt.job import resolve_budget
from sculpt.search.preparation import describe_data, load_data
from sculpt.search.sampling.feasibility import total_trials
from sculpt.search.sampling.samplers import resolve_sampler
from sculpt.search.store import Store, start_store
from sculpt.search.workers.work import Work
from sculpt.training.precision import resolve_precision


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
