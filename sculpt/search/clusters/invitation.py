"""Invitations: what a process elsewhere needs to join a study."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from sculpt.config import Study
from sculpt.search.progress import Watcher
from sculpt.search.session import Session
from sculpt.search.storage.storage_url import file_url, is_sqlite, parse
from sculpt.search.workers.devices import HowMany, choose_devices


@dataclass(frozen=True)
class Invitation:
    """What a process elsewhere needs to join a study: small, and the same in every folder."""

    study: str
    storage: str
    folder: str
    """Where the study was run; what it names by a relative path is looked for from there."""
    device: str = "auto"
    how_many: HowMany = field(default_factory=HowMany)

    def accept(self, watcher: Watcher | None = None) -> None:
        """Join the study, and work on it until nothing is left to do."""
        if Path(self.folder).is_dir():  # a machine need not share it
            os.chdir(self.folder)
        devices = choose_devices(self.device, several=self.how_many.several)
        session = Session.join(self.study, self.storage, {}, devices)
        session.run(watcher or Watcher(), self.how_many)


def invite(config: Study, device: str, how_many: HowMany) -> Invitation:
    """Return an invitation to a study."""
    url = parse(config.storage_url)
    storage = config.storage_url
    if is_sqlite(url):
        file = Path(url.database or "").expanduser().absolute()
        storage = file_url(file).render_as_string(hide_password=False)
    return Invitation(config.study, storage, str(Path.cwd()), device, how_many)
