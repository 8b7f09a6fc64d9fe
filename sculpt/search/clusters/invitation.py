"""Invitations of processes elsewhere to join a study."""

import os
from dataclasses import dataclass
from pathlib import Path

from sculpt.config import Study
from sculpt.registry import load_plugins
from sculpt.search.progress import Watcher
from sculpt.search.session import Session
from sculpt.search.workers.devices import WorkerCount, choose_devices
from sculpt.storage.storage_url import file_url, is_sqlite, parse


@dataclass(frozen=True)
class Invitation:
    """All that a process elsewhere needs to join a study, independent of its working folder."""

    study: str
    storage: str
    folder: str
    """Working folder of the run; relative paths of the study are looked for from there."""
    device: str
    count: WorkerCount
    plugins: list[str]
    """Those of whoever invites."""

    def accept(self, watcher: Watcher) -> None:
        """Join the study, and work on it until nothing is left to do."""
        if Path(self.folder).is_dir():  # a machine need not share it
            os.chdir(self.folder)
        load_plugins(self.plugins)
        devices = choose_devices(self.device, several=self.count.several)
        Session.join(self.study, self.storage, {}, devices).run(watcher, self.count)


def invite(config: Study, device: str, count: WorkerCount) -> Invitation:
    """Return an invitation to a study."""
    url, storage = parse(config.storage_url), config.storage_url
    if is_sqlite(url):
        storage = str(file_url(Path(url.database or "").expanduser().absolute()))
    return Invitation(config.study, storage, str(Path.cwd()), device, count, config.plugins)
