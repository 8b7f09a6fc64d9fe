"""Joining a study that others run, from any process or machine that reaches its storage.

What is trained, and how much, stands in the storage. Only where things lie may differ.
"""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sculpt.config import Study
from sculpt.documents import assign, lookup, read_yaml
from sculpt.errors import ConfigError, InputError
from sculpt.job import resolve_budget
from sculpt.search.archive.recognition import is_archive, refuse_archive
from sculpt.search.preparation import describe_data, load_data
from sculpt.search.progress import Watcher
from sculpt.search.storage.storage_url import file_url, is_sqlite, parse
from sculpt.search.store import Store, open_store
from sculpt.search.workers.beginning import check_machine
from sculpt.search.workers.devices import choose_devices
from sculpt.search.workers.together import HowMany, run_workers
from sculpt.search.workers.work import Work
from sculpt.study_file import document_faults

OF_THE_MACHINE = (
    "data.root",
    "data.download",
    "pruning.data.root",
    "pruning.data.download",
    "artifacts",
)
"""Settings that a worker may have for itself: images and artifacts are checked to be the same."""


def join_study(
    reference: str | Path,
    storage: str | None = None,
    *,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
    how_many: HowMany | None = None,
) -> Store:
    """Work on a study until nothing is left to do; a total that is raised meanwhile is followed.

    Args:
        reference:
            A study file, of which only its name and what may differ by machine is read, or the
            name of a study.
        storage:
            Where it is kept, if not where the file says (or `runs/NAME.db` for a name).
        overrides:
            Keys of `OF_THE_MACHINE` to values.
        device:
            A torch device, several separated by commas, or `auto`.
        watcher:
            Is told of the progress.
        how_many:
            Workers; by default one for each device.

    Raises:
        StorageError: there is no such study; run it first.
        InputError: this machine cannot work on it, or another setting is given.
        SculptError: the base failed, every candidate did, or every worker died.
    """
    how_many = how_many or HowMany()
    if is_archive(reference, storage):
        refuse_archive(reference, "a worker must join a study where it is kept")
    _refuse_settings(overrides or {})
    devices = choose_devices(device, several=how_many.several)
    found = open_store(reference, storage)
    found.storage.close()
    config = _with_places(found.config, _places(found.config, reference) | (overrides or {}))
    check_machine(config, devices)
    budget = resolve_budget(config, describe_data(config))
    stream = secrets.randbits(32)  # another one than of workers that start beside these
    work = Work(config, load_data(config), devices, budget, None, stream)
    store = work.open()
    run_workers(store, work, watcher or Watcher(), how_many)
    return store


@dataclass(frozen=True)
class Invitation:
    """What a process elsewhere needs to join a study: small, and the same in every folder."""

    study: str
    storage: str
    folder: str
    """Where the study was run; what it names by a relative path is looked for from there."""
    device: str = "auto"
    how_many: HowMany = field(default_factory=HowMany)

    def accept(self, watcher: Watcher | None = None) -> Store:
        """Join the study; see `join_study`."""
        if Path(self.folder).is_dir():  # a machine need not share it
            os.chdir(self.folder)
        return join_study(
            self.study, self.storage, device=self.device, watcher=watcher, how_many=self.how_many
        )


def invite(config: Study, device: str, how_many: HowMany) -> Invitation:
    """Return an invitation to a study."""
    url = parse(config.storage_url)
    storage = config.storage_url
    if is_sqlite(url):
        file = Path(url.database or "").expanduser().absolute()
        storage = file_url(file).render_as_string(hide_password=False)
    return Invitation(config.study, storage, str(Path.cwd()), device, how_many)


def _refuse_settings(overrides: dict[str, Any]) -> None:
    others = [key for key in overrides if key not in OF_THE_MACHINE]
    if others:
        raise InputError(
            f"a worker must train what the study was started with, so --set takes only "
            f"{', '.join(OF_THE_MACHINE)}, but got {', '.join(others)}; change the study where it "
            "is run (sculpt run)"
        )


def _places(stored: Study, reference: str | Path) -> dict[str, Any]:
    """Return what a local study file says of where this machine keeps its images."""
    if not str(reference).endswith((".yaml", ".yml")):
        return {}
    local = read_yaml(Path(reference))
    before = stored.model_dump()
    found = {}
    for key in OF_THE_MACHINE:
        name = f"{key.rpartition('.')[0]}.name"
        value = lookup(local, key)
        if value is not None and lookup(local, name) == lookup(before, name):
            found[key] = value
    return found


def _with_places(stored: Study, places: dict[str, Any]) -> Study:
    if not places:
        return stored
    document = stored.model_dump()
    for key, value in places.items():
        assign(document, key, value)
    if faults := document_faults(document):
        raise ConfigError("\n".join(faults))
    return Study.model_validate(document)
