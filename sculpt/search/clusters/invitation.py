"""Invitations of processes elsewhere to join a study."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sculpt.config import Study
from sculpt.registry import asked_for, load_plugins
from sculpt.search.progress import Watcher
from sculpt.search.session import Session
from sculpt.search.workers.devices import WorkerCount, choose_devices
from sculpt.storage.sqlite_file import SqliteFile
from sculpt.storage.study_storage import database_at

Invitation = Callable[[Watcher], None]
"""Joins a study, and works on it until nothing is left to do; it can be pickled."""


def invite(config: Study, device: str, count: WorkerCount) -> Invitation:
    """Return an invitation to a study; its relative paths are looked for from this folder."""
    database = database_at(config.storage_url)
    url = str(database.url) if isinstance(database, SqliteFile) else config.storage_url
    plugins = config.plugins, asked_for(config.plugins)
    return partial(_accept, config.study, url, Path.cwd(), device, count, plugins)


def _accept(
    study: str,
    url: str,
    folder: Path,
    device: str,
    count: WorkerCount,
    plugins: tuple[list[str], list[str]],
    watcher: Watcher,
) -> None:
    if folder.is_dir():  # a machine need not share it
        os.chdir(folder)
    load_plugins(*plugins)
    devices = choose_devices(device, several=count.several)
    Session.join(study, url, {}, devices).run(watcher, count)
