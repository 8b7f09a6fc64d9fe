"""The documents of an archive: the study with its settings, and one line for each trial.

Their words are Optuna's. They hold what queries read, and nothing of what workers need to go on.
"""

import json
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution, json_to_distribution
from pydantic import Field

from sculpt.config import Section

FORMAT_FAMILY, FORMAT = "sculpt-archive-", "sculpt-archive-1"
"""Raised when older versions could misread it."""

RECORDS = "records"
"""Folder of the records: `base.json`, `3.json`."""

Json = dict[str, Any]
"""An object of JSON, of Optuna's or a plug-in's, that is kept as it is."""

Distributions = dict[str, Json]


class ArchivedStudy(Section):
    """One of the three Optuna studies that a study is made of."""

    directions: Annotated[list[Literal["minimize", "maximize"]], Field(min_length=1)]
    metric_names: list[str] | None
    user_attrs: Json
    distributions: Distributions
    """The usual distribution of each parameter; a trial that has another one names it."""
    trials: Annotated[int, Field(ge=0)]
    """Number of lines of its file."""


class ArchivedStudies(Section):
    """Each has a file of its name, which ends in `.jsonl`."""

    base: ArchivedStudy
    candidates: ArchivedStudy
    confirmation: ArchivedStudy | None


class ArchiveHead(Section):
    """The file `study.json`."""

    format: str
    sculpt: str
    """Version of the writer."""
    study: str
    settings: Json
    images: str
    total: int
    studies: ArchivedStudies
    records: list[int | Literal["base"]]
    """Trials whose records are archived."""


class ArchivedTrial(Section):
    """One line of a `.jsonl` file."""

    number: int
    state: Literal["COMPLETE", "PRUNED", "FAIL", "WAITING"]
    params: Json
    values: list[float] | None
    user_attrs: Json
    start: str | None
    complete: str | None
    distributions: Distributions = Field(default={})
    intermediate_values: dict[str, float] = Field(default={})
    system_attrs: Json = Field(default={})


def distribution_of(written: Json) -> BaseDistribution:
    """Return a distribution from JSON; ValueError, KeyError or TypeError if it is none."""
    return json_to_distribution(json.dumps(written))
