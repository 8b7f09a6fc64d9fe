"""What is repeated while a server is away, for how long, and what is not."""

import inspect
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import tenacity
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, _cached_storage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from sculpt.search.storage import retries, study_storage
from sculpt.search.storage.claims import counts, requeue_interrupted
from sculpt.search.storage.failures import LostStorageError
from sculpt.search.storage.retries import IDEMPOTENT, Patience
from sculpt.search.storage.study_storage import StudyFull, StudyStorage, storage_of


def away(*, passes: bool = True) -> LostStorageError:
    error = LostStorageError("away")
    error.passes = passes
    return error


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let time pass by sleeping alone; return how long each sleep was."""
    slept: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", slept.append)
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: 1000.0 + sum(slept)))
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


@pytest.mark.parametrize("error", [away(passes=False), KeyError("x"), StudyFull()])
def test_what_does_not_pass_is_raised_at_once(error: Exception, slept: list[float]) -> None:
    with pytest.raises(type(error)) as raised:
        Patience()(failing(1, error))
    assert raised.value is error
    assert slept == []


def test_every_call_of_optunas_cache_is_repeated_or_known_not_to_be() -> None:
    called = set(re.findall(r"_backend\.(\w+)", inspect.getsource(_cached_storage)))
    # They make something or take it away, or are not statements, or have code of their own here.
    others = {"create_new_study", "_create_new_trial", "delete_study", "set_trial_state_values"}
    others |= {"get_heartbeat_interval", "get_heartbeat_stale_trial_callback"}
    assert called - others <= set(IDEMPOTENT)
    assert others <= called


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


@pytest.mark.parametrize("name", ["set_trial_user_attr", "_set_trial_param", "record_heartbeat"])
def test_what_was_written_though_the_answer_was_lost_is_written_once(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(
        retries.PatientStorage, name, losing_then_patient(getattr(RDBStorage, name))
    )

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("kind", "candidate")
        return trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        assert (trial.value, trial.user_attrs) == (trial.params["x"], {"kind": "candidate"})


def losing_then_patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a patient storage makes of a method that loses its first answer."""
    losing = losing_answers(method)
    return lambda self, *args, **options: self.patience(losing, self, *args, **options)


def test_a_trial_whose_making_was_not_answered_is_counted_and_run(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage_of(study).limits[1] = 2
    create = RDBStorage._create_new_trial
    monkeypatch.setattr(RDBStorage, "_create_new_trial", losing_answers(create))
    study.optimize(lambda trial: 1.0, n_trials=2)
    with pytest.raises(StudyFull):
        study.optimize(lambda trial: 1.0, n_trials=1)
    assert len(study.trials) == 2
    assert counts(study)["complete"] == 2


def test_a_retry_whose_making_was_not_answered_is_made_once(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        trial_id = storage_of(study).create_new_trial(1)
        storage_of(study).set_trial_state_values(trial_id, TrialState.FAIL)
    create = RDBStorage._create_new_trial
    monkeypatch.setattr(RDBStorage, "_create_new_trial", losing_answers(create, 2))
    requeue_interrupted(study)
    assert (counts(study)["interrupted"], counts(study)["queued"]) == (3, 3)
    assert len(study.trials) == 6


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

    def failed_by_another(self: RDBStorage, *args: Any) -> bool:
        monkeypatch.setattr(RDBStorage, "set_trial_state_values", set_state)
        set_state(self, trial_id, TrialState.FAIL)
        raise away()

    monkeypatch.setattr(RDBStorage, "set_trial_state_values", failed_by_another)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])


def test_a_claim_that_was_not_answered_is_found_dead(
    study: optuna.Study,
    storage: StudyStorage,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    study.enqueue_trial({"x": 0.5})
    set_state = RDBStorage.set_trial_state_values
    monkeypatch.setattr(RDBStorage, "set_trial_state_values", losing_answers(set_state))
    assert not storage.set_trial_state_values(1, TrialState.RUNNING)
    assert study.trials[0].state is TrialState.RUNNING
    wait_until(lambda: requeue_interrupted(study) or time.sleep(0.1))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert [trial.value for trial in study.trials] == [None, 0.5]


def test_a_heartbeat_that_cannot_be_written_is_missed_and_no_more(
    study: optuna.Study, storage: StudyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_id = storage.create_new_trial(1)

    def fail(*_: object) -> None:
        raise away(passes=False)

    monkeypatch.setattr(retries.PatientStorage, "record_heartbeat", fail)
    storage.record_heartbeat(trial_id)


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

    monkeypatch.setattr(study_storage, "check_server", lambda url, create: None)
    monkeypatch.setattr(study_storage, "StudyStorage", opened)
    assert study_storage.open_storage("postgresql://me@nowhere/x", create=False) == "the storage"
    assert len(calls) == 3
