"""The documents of an archive: the study with its settings, and one line for each trial.

Their words are Optuna's. They hold what queries read, and nothing of what workers need to go on.
"""

import json
import operator
from datetime import datetime
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import Field

from sculpt.config import Section
from sculpt.storage.archive.privacy import Privacy
from sculpt.storage.attributes import PROBLEMS
from sculpt.storage.stored_trials import attempt_attributes
from sculpt.storage.trials import retries_left

FORMAT_FAMILY, FORMAT = "sculpt-archive-", "sculpt-archive-1"
"""Raised when older versions could misread it."""

RECORDS = "records"
"""Folder of the records: `base.json`, `3.json`, `opponent-0.json`."""

Json = dict[str, Any]
"""An object of JSON, of Optuna's or a plug-in's, that is kept as it is."""

Distributions = dict[str, Json]


class ArchivedStudy(Section):
    """One of the Optuna studies that a study is made of."""

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
    opponents: Annotated[ArchivedStudy | None, Field(exclude_if=operator.not_)] = None


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
    records: list[int | str]
    """Trials whose records are archived: numbers, `base`, and `opponent-NUMBER`."""


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

    @classmethod
    def of(cls, trial: FrozenTrial, usual: Distributions, privacy: Privacy) -> "ArchivedTrial":
        """Return one of Optuna's trials.

        One that is running is written as failed without an error of its own, which is read as
        interrupted: the end of this attempt will never be seen here. Where that would be read as
        failed, because it has been interrupted as often as it may be, it is written as queued.
        """
        state, start, complete = trial.state, trial.datetime_start, trial.datetime_complete
        if state is TrialState.RUNNING:
            last = retries_left(trial) <= 0
            state, start = (TrialState.WAITING, None) if last else (TrialState.FAIL, start)
        own = written_distributions(trial.distributions, privacy)
        return cls.model_construct(
            number=trial.number,
            state=state.name,
            params=privacy.hide(trial.params),
            values=trial.values,
            user_attrs={
                name: (privacy.hide_message if name in PROBLEMS else privacy.hide)(value)
                for name, value in sorted(trial.user_attrs.items())
            },
            start=start.isoformat() if start else None,
            complete=complete.isoformat() if complete else None,
            distributions={name: kind for name, kind in own.items() if kind != usual.get(name)},
            intermediate_values={str(k): v for k, v in sorted(trial.intermediate_values.items())},
            system_attrs=attempt_attributes(trial),
        )

    def to_optuna(self, usual: dict[str, BaseDistribution]) -> FrozenTrial:
        """Return Optuna's trial; ValueError where Optuna refuses it, for example if it is complete
        without values, and KeyError if a parameter has no distribution."""
        known = usual | read_distributions(self.distributions)
        trial = create_trial(
            state=TrialState[self.state],
            values=self.values,
            params=self.params,
            distributions={name: known[name] for name in self.params},
            user_attrs=self.user_attrs,
            system_attrs=self.system_attrs,
            intermediate_values={int(at): value for at, value in self.intermediate_values.items()},
        )
        trial.datetime_start = datetime.fromisoformat(self.start) if self.start else None
        trial.datetime_complete = datetime.fromisoformat(self.complete) if self.complete else None
        return trial


def written_distributions(found: dict[str, BaseDistribution], privacy: Privacy) -> Distributions:
    """Return distributions of parameters as JSON, without places."""
    written = {name: json.loads(distribution_to_json(found[name])) for name in sorted(found)}
    hidden: Distributions = privacy.hide(written)
    return hidden


def read_distributions(written: Distributions) -> dict[str, BaseDistribution]:
    """Return distributions from JSON; ValueError, KeyError or TypeError if one is none."""
    return {name: json_to_distribution(json.dumps(kind)) for name, kind in written.items()}
