"""The run of a study: everything is made ready and checked, then workers go to work."""

from sculpt.config import Study
from sculpt.search.progress import Watcher
from sculpt.search.store import Store
from sculpt.search.workers.beginning import begin_study
from sculpt.search.workers.devices import choose_devices
from sculpt.search.workers.together import HowMany, run_workers


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
