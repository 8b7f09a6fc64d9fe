"""What is repeated while a server is away, for how long, and what is not."""

import inspect
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import tenacity
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from outcomes import run_one
from sqlalchemy.exc import OperationalError

from sculpt.storage import failures as patience_module
from sculpt.storage import study_storage
from sculpt.storage.failures import LostStorageError, Patience
from sculpt.storage.optuna_names import table_names
from sculpt.storage.postgres import PostgresDatabase
from sculpt.storage.study_storage import StudyStorage
from sculpt.storage.trials import ClaimedTrial, Trials


def away(*, passes: bool = True) -> LostStorageError:
    error = LostStorageError("away")
    error.passes = passes
    return error


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let time pass by sleeping alone; return how long each sleep was."""
    slept: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", slept.append)
    monkeypatch.setattr(
        patience_module, "time", SimpleNamespace(monotonic=lambda: 1000.0 + sum(slept))
    )
    return slept


def failing(times: int, error: Exception) -> Callable[[], int]:
    """Return a function that fails so many times, and then returns how often it was called."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error
        return calls

    return call


def test_a_server_that_comes_back_is_waited_for(slept: list[float]) -> None:
    assert Patience()(failing(5, away())) == 6
    assert len(slept) == 5
    assert len(set(slept)) == 5, "waits without chance: all workers would ask at once"
    assert max(slept) <= 3.0


def test_patience_ends(slept: list[float]) -> None:
    error = away()
    with pytest.raises(LostStorageError) as raised:
        Patience(60.0)(failing(10**6, error))
    assert raised.value is error
    assert 60 <= sum(slept) <= 63


def test_all_calls_share_one_patience_until_one_succeeds(slept: list[float]) -> None:
    patience = Patience(60.0)
    for expected in (range(20, 10**6), [0], [0]):
        before = len(slept)
        with pytest.raises(LostStorageError):
            patience(failing(10**6, away()))
        assert len(slept) - before in expected
    assert patience(failing(0, away())) == 1
    assert patience(failing(3, away())) == 4


@pytest.mark.parametrize("error", [away(passes=False), KeyError("x")])
def test_what_does_not_pass_is_raised_at_once(error: Exception, slept: list[float]) -> None:
    with pytest.raises(type(error)) as raised:
        Patience()(failing(1, error))
    assert raised.value is error
    assert slept == []


def losing_answers(method: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """Return a method that does its work, and then fails as if nobody had been answered."""
    left = times

    def lose(*args: Any, **options: Any) -> Any:
        nonlocal left
        answer = method(*args, **options)
        if left:
            left -= 1
            raise away()
        return answer

    return lose


@pytest.mark.slow
@pytest.mark.parametrize("name", ["set_trial_user_attr", "_set_trial_param", "record_heartbeat"])
def test_what_was_written_though_the_answer_was_lost_is_written_once(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(RDBStorage, name, losing_answers(getattr(RDBStorage, name)))

    def objective(claimed: ClaimedTrial) -> list[float]:
        claimed.trial.set_user_attr("kind", "candidate")
        return [claimed.trial.suggest_float("x", 0, 1)]

    for _ in range(2):
        assert run_one(trials, objective)
    for trial in trials.read():
        assert (trial.value, trial.user_attrs) == (trial.params["x"], {"kind": "candidate"})


@pytest.mark.parametrize(
    "name",  # but those that are tested by what they do
    sorted(BaseStorage.__abstractmethods__ - {"create_new_trial", "set_trial_state_values"}),
)
def test_every_method_is_repeated_unless_it_makes_something(
    storage: StudyStorage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls: list[str] = []

    def fail_once(*given: Any, **options: Any) -> str:
        calls.append(name)
        if len(calls) == 1:
            raise away()
        return "answer"

    fail_once.__name__ = name
    given = [1] * (len(inspect.signature(getattr(BaseStorage, name)).parameters) - 1)
    monkeypatch.setattr(storage._backend, name, fail_once)
    if name in ("create_new_study", "delete_study"):
        with pytest.raises(LostStorageError):
            getattr(storage, name)(*given)
    else:
        assert getattr(storage, name)(*given) == "answer"


def test_a_trial_whose_making_was_not_answered_is_counted_and_run(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = RDBStorage._create_new_trial
    monkeypatch.setattr(RDBStorage, "_create_new_trial", losing_answers(create))
    while run_one(trials, lambda _: [1.0], limit=2):
        pass
    assert len(trials.read()) == 2
    assert trials.counts()["complete"] == 2


@pytest.mark.parametrize("queued", [True, False])
def test_a_claim_that_was_not_answered_makes_not_one_too_many(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    """It runs for nobody, and counts: in its place there is no new trial, nor a second one."""
    if queued:
        trials.study.enqueue_trial({"x": 0.5})
    set_state = RDBStorage.set_trial_state_values
    monkeypatch.setattr(RDBStorage, "set_trial_state_values", losing_answers(set_state))
    assert trials.claim(1) is None
    assert [trial.state for trial in trials.read()] == [TrialState.RUNNING]


def test_a_retry_whose_making_was_not_answered_is_made_once(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        claimed = trials.claim(10)
        trials.storage.set_trial_state_values(claimed.trial_id, TrialState.FAIL)
    create = RDBStorage._create_new_trial
    monkeypatch.setattr(RDBStorage, "_create_new_trial", losing_answers(create, 2))
    trials.requeue()
    assert (trials.counts()["interrupted"], trials.counts()["queued"]) == (3, 3)
    assert len(trials.read()) == 6


def test_an_end_that_was_not_answered_is_an_end(
    study: optuna.Study, storage: StudyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_id = storage.create_new_trial(1)
    set_state = RDBStorage.set_trial_state_values
    monkeypatch.setattr(RDBStorage, "set_trial_state_values", losing_answers(set_state))
    assert storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
    assert study.trials[0].value == 0.5


def test_another_workers_end_is_not_taken_for_ones_own(
    study: optuna.Study, storage: StudyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_id = storage.create_new_trial(1)
    set_state = RDBStorage.set_trial_state_values

    def failed_by_another(self: RDBStorage, *args: Any, **options: Any) -> bool:
        monkeypatch.setattr(RDBStorage, "set_trial_state_values", set_state)
        set_state(self, trial_id, TrialState.FAIL)
        raise away()

    monkeypatch.setattr(RDBStorage, "set_trial_state_values", failed_by_another)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])


def test_a_claim_that_was_not_answered_is_found_dead(
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    trials.study.enqueue_trial({"x": 0.5})
    set_state = RDBStorage.set_trial_state_values
    monkeypatch.setattr(RDBStorage, "set_trial_state_values", losing_answers(set_state))
    assert trials.claim(1) is None
    wait_until(lambda: trials.requeue() or time.sleep(0.1))
    run_one(trials, lambda claimed: [claimed.trial.suggest_float("x", 0, 1)], limit=1)
    assert [trial.value for trial in trials.read()] == [None, 0.5]


def test_a_heartbeat_that_cannot_be_written_is_missed_and_no_more(
    trials: Trials, storage: StudyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = trials.claim(1)

    def fail(*_: object) -> None:
        raise away(passes=False)

    monkeypatch.setattr(RDBStorage, "record_heartbeat", fail)
    storage.record_heartbeat(claimed.trial_id)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_server_that_restarts_while_it_is_opened_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    """SQLAlchemy's error comes by itself, or as the cause of Optuna's."""

    class AdminShutdownError(Exception):
        sqlstate = "57P01"

    calls = []

    def opened(*given: Any, **options: Any) -> str:
        calls.append(given)
        if len(calls) > 2:
            return "the storage"
        cause = AdminShutdownError("terminating connection due to administrator command")
        try:
            raise OperationalError("SELECT 1", {}, cause) from cause
        except OperationalError as error:
            if wrapped:
                raise StorageInternalError("an exception is raised during the commit") from error
            raise

    monkeypatch.setattr(PostgresDatabase, "tables", lambda database: table_names())
    monkeypatch.setattr(study_storage, "StudyStorage", opened)
    assert study_storage.open_storage("postgresql://me@nowhere/x", create=False) == "the storage"
    assert len(calls) == 3
