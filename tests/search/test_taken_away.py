"""A worker whose trial is given to another one, at any moment, drops its result and goes on."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from outcomes import fail, refuse, run_one, stop, succeed

import sculpt
from sculpt.storage import trials as trials_module
from sculpt.storage.study_storage import StudyStorage, open_storage
from sculpt.storage.trials import ClaimedTrial, Trials, original_number
from studies import write_study

READ_OR_WRITTEN = (
    "get_trial",
    "get_trial_system_attrs",
    "set_trial_param",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_trial_state_values",
)
"""Methods of the storage by which a worker reads or writes its trial; the first argument is it."""


class Thief:
    """Gives the n-th candidate to another worker just before the n-th look at it, or write.

    Their retries are left alone.
    """

    def __init__(self, other: StudyStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.other = other
        self.claimed: ClaimedTrial | None = None
        self.seen = 0
        self.moments: list[str] = []
        self.stolen: list[int] = []
        for name in READ_OR_WRITTEN:
            monkeypatch.setattr(StudyStorage, name, self.watched(getattr(StudyStorage, name)))
        write = trials_module.write_attributes
        monkeypatch.setattr(trials_module, "write_attributes", self.watched(write))
        self.run = Trials.run
        monkeypatch.setattr(Trials, "run", lambda trials, *rest: self.begin(trials, *rest))

    def begin(self, trials: Trials, claimed: ClaimedTrial, objective: Callable[..., Any]) -> Any:
        first = claimed.origin == claimed.trial.number
        if trials.study.study_name == "tiny" and first:
            self.claimed, self.seen = claimed, 0
        try:
            return self.run(trials, claimed, objective)
        finally:
            self.claimed = None

    def watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(storage: StudyStorage, trial_id: int, *rest: Any, **options: Any) -> Any:
            claimed = self.claimed
            if claimed and storage is not self.other and trial_id == claimed.trial_id:
                self.seen += 1
                state = self.other.get_trial(trial_id).state
                if state is TrialState.RUNNING and self.seen == len(self.moments) + 1:
                    self.claimed = None
                    self.moments.append(method.__name__)
                    self.take(claimed)
            return method(storage, trial_id, *rest, **options)

        call.__name__ = method.__name__
        return call

    def take(self, claimed: ClaimedTrial) -> None:
        """Do what another worker does that finds the trial silent."""
        self.stolen.append(claimed.trial.number)
        self.other.set_trial_state_values(claimed.trial_id, TrialState.FAIL)
        study = optuna.load_study(study_name="tiny", storage=self.other)
        assert Trials(study, self.other).requeue() == 1


@pytest.mark.slow
def test_at_any_moment(tmp_path, monkeypatch):
    path = write_study(
        tmp_path,
        data__train_images=100,
        model={"name": "mlp", "layers": 2, "units": 16},
        space={"parameters": {"units": {"low": 20, "high": 99}, "pruning.repair": [True, False]}},
        training__epochs=3,
        search__trials=44,
        search__replicates=1,
        search__early_stopping={"first_rung": 1, "proxy": "score_share"},
    )
    open_storage(str(tmp_path / "tiny.db"), create=True).close()
    with closing(open_storage(str(tmp_path / "tiny.db"), create=False)) as other:
        thief = Thief(other, monkeypatch)
        results = sculpt.run(path)
    # Parameters are drawn, attributes written, files kept, the state is looked at, and told.
    seen = Counter(thief.moments)
    assert {"set_trial_param", "write_attributes", "set_trial_system_attr"} <= seen.keys()
    assert {"get_trial", "set_trial_state_values"} <= seen.keys(), "by tell, which looks first"
    tally = results.tally()
    assert tally["total"] == 44 == tally["complete"] + tally["stopped"]
    assert tally["interrupted"] == len(thief.moments)
    assert tally["failed"] == tally["running"] == tally["queued"] == 0
    trials = results.store.candidates.get_trials(deepcopy=False)
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    ends = Counter(original_number(trial) for trial in ended)
    assert set(ends.values()) == {1}
    for number in thief.stolen:
        assert (trials[number].state, trials[number].values) == (TrialState.FAIL, None)
        assert "error" not in trials[number].user_attrs
    results.store.storage.close()


@pytest.fixture
def other(storage_url, storage):
    """Return the storage of another worker."""
    with closing(open_storage(storage_url, create=False, grace_seconds=2)) as other:
        yield other


class Second:
    """A second worker that ends a trial once, just before its state is set."""

    def __init__(self, other: StudyStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tables, self.set_state = other._tables, RDBStorage.set_trial_state_values
        self.moment: TrialState | None = None
        monkeypatch.setattr(RDBStorage, "set_trial_state_values", self.watched())

    def watched(self) -> Callable[..., bool]:
        def call(tables: RDBStorage, trial_id: int, state: TrialState, values: Any = None) -> bool:
            if state is self.moment and tables is not self.tables:
                self.moment = None
                self.end(trial_id)
            return self.set_state(tables, trial_id, state, values)

        return call

    def end(self, trial_id: int, end: TrialState = TrialState.FAIL) -> None:
        if self.tables.get_trial(trial_id).state is TrialState.WAITING:
            self.set_state(self.tables, trial_id, TrialState.RUNNING)
        self.set_state(self.tables, trial_id, end)


@pytest.mark.parametrize("queued", [True, False])
def test_between_making_and_claiming(trials, other, monkeypatch, queued):
    if queued:
        trials.study.enqueue_trial({"x": 0.5})
    Second(other, monkeypatch).moment = TrialState.RUNNING
    assert run_one(trials, succeed, limit=2)
    assert [trial.state for trial in trials.read()] == [TrialState.FAIL, TrialState.COMPLETE]


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (succeed, TrialState.COMPLETE),
        (stop, TrialState.PRUNED),
        (refuse, TrialState.PRUNED),
        (fail, TrialState.FAIL),
    ],
)
@pytest.mark.parametrize("looked", [True, False])
def test_when_it_is_told(trials, other, monkeypatch, objective, told, looked):
    """Before tell looks at it, and between its look and its write."""
    second = Second(other, monkeypatch)
    claimed = trials.claim(9)
    assert claimed

    def then_taken(claimed: ClaimedTrial) -> list[float]:
        try:
            return objective(claimed)
        finally:
            if looked:
                second.moment = told
            else:
                second.end(claimed.trial_id)

    assert trials.run(claimed, then_taken) is None
    assert trials.read()[0].state is TrialState.FAIL
    assert run_one(trials, succeed)
    assert trials.read()[1].state is TrialState.COMPLETE
