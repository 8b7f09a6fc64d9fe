"""The names of Optuna that are not its public ones, or are experimental: all that sculpt uses.

tests/search/test_optuna_contracts.py fails by name when Optuna moves one of them.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb.models import BaseModel
from optuna.trial import FrozenTrial
from sqlalchemy import URL

PRIVATE = (
    "optuna.storages._CachedStorage",
    "optuna.storages.RDBStorage._get_stale_trial_ids",
    "optuna.samplers.QMCSampler._find_sample_id",  # of sculpt.search.sampling.samplers
    "optuna.storages._rdb.models.BaseModel",
)

PRIVATE_ATTRIBUTES = ("_study_id", "_trial_id", "_storage")
"""Attributes of a study and of a trial: Optuna's dashboard reads them where notes are saved, so
`sculpt.presentation.dashboard.attributes` has them in what it passes for a trial. With `_storage`,
samplers have no other way to write of a trial than them."""


@contextmanager
def experimental_accepted() -> Iterator[None]:
    """Silence the notes that a part of Optuna is experimental; our tests watch those parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def rdb_storage(url: URL, engine: dict[str, Any], *, create: bool = False) -> RDBStorage:
    """Return Optuna's storage of a database, by SQLAlchemy's options; `create` missing tables."""
    # Optuna takes a URL for a template, and SQLAlchemy before 2.1 does not quote braces.
    template = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with experimental_accepted():  # heartbeats are
        return RDBStorage(template, engine, heartbeat_interval=1, skip_table_creation=not create)


def table_names() -> set[str]:
    """Return the names of all tables of Optuna's."""
    return set(BaseModel.metadata.tables)


def cached(tables: RDBStorage) -> BaseStorage:
    """Return a storage that remembers finished trials, as Optuna itself puts before tables."""
    return _CachedStorage(tables)


def set_system_attribute(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Write a system attribute of a trial that a sampler draws for, as Optuna's samplers do."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def stale_trial_ids(tables: RDBStorage, study_id: int) -> list[int]:
    """Return the running trials of a study that have been silent for the grace period."""
    return tables._get_stale_trial_ids(study_id)
