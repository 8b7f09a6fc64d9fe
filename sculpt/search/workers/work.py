"""What workers of a study need, in whatever process of whatever machine they are."""

from dataclasses import dataclass, replace

import optuna
import torch

from sculpt.config import Study
from sculpt.data import Splits
from sculpt.registry import load_plugins
from sculpt.search.artifacts.places import artifacts_of
from sculpt.search.progress import Watcher
from sculpt.search.sampling.samplers import make_sampler
from sculpt.search.store import Store, check_artifacts, open_store, refuse_other_images
from sculpt.search.workers.devices import use_device
from sculpt.search.workers.interruption import Interruption
from sculpt.search.workers.worker import Worker


@dataclass(frozen=True)
class Work:
    """What the workers of one machine need to run trials of a study that was begun."""

    config: Study
    splits: Splits
    """On the CPU, so that all processes share one copy."""
    devices: list[torch.device]
    """Dealt out to the workers in turn."""
    budget: int
    """Of the base."""
    total: int | None
    """Of trials, the base included; None is what the study was last asked for, now or later."""
    first_stream: int = 0
    """Of chance: workers that start at once must not draw the same configurations."""

    def device_of(self, number: int) -> torch.device:
        """Return the device of a worker; see `worker`."""
        return self.devices[max(0, number - 1) % len(self.devices)]

    def open(self) -> Store:
        """Open the study, to work on it.

        Raises:
            ConfigError: it was begun with other images.
            StorageError: it cannot be opened, or its artifacts cannot.
        """
        config = self.config
        grace = config.search.grace_seconds
        store = open_store(config.study, config.storage_url, grace_seconds=grace)
        images = store.candidates.user_attrs["images"]
        refuse_other_images(config, self.splits.fingerprint, images)
        store = replace(store, config=config, artifacts=artifacts_of(config))
        check_artifacts(store)
        return store

    def worker(self, number: int, watcher: Watcher, interruption: Interruption) -> Worker:
        """Return a worker of this process.

        Args:
            number:
                Among those of this machine, from 1; 0 is the process that started them.
            watcher:
                Is told of the progress.
            interruption:
                Cuts short what it does.
        """
        load_plugins(self.config.plugins)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        device = self.device_of(number)
        use_device(device)
        store = self.open()
        before = len(store.candidates.get_trials(deepcopy=False))
        stream = self.first_stream + number
        store.candidates.sampler = make_sampler(self.config, before, stream)
        return Worker(store, self.splits.to(device), self.budget, watcher, interruption)
