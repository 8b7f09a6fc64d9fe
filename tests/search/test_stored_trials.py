"""Trials read at once from the tables are those that Optuna reads."""

import gc
import math

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial
from outcomes import run_one

from sculpt.storage.attributes import ATTEMPTS, RETRY_OF
from sculpt.storage.stored_trials import read_trials
from sculpt.storage.trials import ClaimedTrial, Trials

SPACE: dict[str, tuple[object, BaseDistribution]] = {
    "width": (2.5, FloatDistribution(1.0, 8.0, step=0.5)),
    "rate": (0.02, FloatDistribution(0.01, 0.2, log=True)),
    "blocks": (3, IntDistribution(1, 5)),
    "pruning.criterion": ("synflow", CategoricalDistribution(["grasp", "synflow"])),
    "repair": (False, CategoricalDistribution([True, False])),
}
HOSTILE = {
    'a "quoted" \\ key': 'a "quoted" \\ value',
    "back\\": "x",
    "empty": "",
    "nothing": None,
    "nested": {"list": [1, 2.5, None, "ä"], "flag": True},
    "tab": "a\tb\nc",
    "</script>": "<b>&amp;",
    "infinite": math.inf,
}


def test_agrees_with_optuna(storage):
    other = optuna.create_study(storage=storage, study_name="other")
    study = optuna.create_study(storage=storage, study_name="study", directions=["minimize"] * 2)
    for trial in (
        create_trial(
            state=TrialState.COMPLETE,
            values=[0.5, 1.0],
            params={name: value for name, (value, _) in SPACE.items()},
            distributions={name: distribution for name, (_, distribution) in SPACE.items()},
            user_attrs=HOSTILE,
        ),
        create_trial(values=[math.inf, -math.inf]),
        create_trial(
            state=TrialState.PRUNED,
            user_attrs={"stopped_at": 3},
            system_attrs={"a": [1]},
            intermediate_values={10: math.inf, 2: 0.5, 3: -math.inf},
        ),
        create_trial(state=TrialState.FAIL),
        create_trial(state=TrialState.WAITING, user_attrs={"error": "no"}),
        create_trial(state=TrialState.RUNNING),
    ):
        study.add_trial(trial)
        other.add_trial(create_trial(value=1.0, user_attrs={"belongs": "elsewhere"}))
    read = read_trials(study, storage)
    assert len(read) == 6
    for ours, theirs in zip(read, study.get_trials(), strict=True):
        assert ours == theirs
        assert list(ours.params) == list(theirs.params)


def test_says_which_attempt_it_is(storage):
    study = optuna.create_study(storage=storage, study_name="study")
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"kept": 1}))
    assert Trials(study, storage).requeue() == 1
    first, retry = read_trials(study, storage)
    assert dict(first.system_attrs) == {}
    assert retry.system_attrs[RETRY_OF] == 0
    assert retry.system_attrs[ATTEMPTS] == [0]


def test_what_is_written_at_once_is_what_optuna_reads(storage):
    optuna.create_study(storage=storage, study_name="other").add_trial(create_trial(value=1.0))
    study = optuna.create_study(storage=storage, study_name="study")
    study.add_trial(create_trial(value=1.0))
    ours: list[ClaimedTrial] = []

    def objective(claimed: ClaimedTrial) -> list[float]:
        claimed.trial.set_user_attr("empty", "no more")
        ours.append(claimed)
        claimed.write(HOSTILE)
        claimed.write({"flag": 1})
        return [1.0]

    assert run_one(Trials(study, storage), objective)
    assert study.trials[1].user_attrs == HOSTILE | {"flag": 1}
    assert study.trials[0].user_attrs == {}
    with pytest.raises(UpdateFinishedTrialError):
        ours[0].write({"flag": 2, "late": True})
    assert study.trials[1].user_attrs == HOSTILE | {"flag": 1}


def test_no_trials_and_the_collector_runs_on(storage):
    study = optuna.create_study(storage=storage, study_name="study")
    assert read_trials(study, storage) == []
    assert gc.isenabled()
