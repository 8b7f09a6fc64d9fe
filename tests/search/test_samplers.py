"""Samplers by name, and that none of them ever proposes a configuration twice."""

import subprocess
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import get_args

import optuna
import pytest
from optuna.storages import InMemoryStorage
from storage_worker import SEARCHED

from sculpt.config import Study
from sculpt.config.search import Sampler
from sculpt.errors import ConfigError
from sculpt.search.sampling.samplers import make_sampler, resolve_sampler
from sculpt.search.sampling.space import distribution, points, space_size, suggest
from sculpt.search.sampling.unrepeated import first_with, key_of
from sculpt.storage.trials import Trials

NAMES = get_args(Sampler)
SAMPLING = [
    pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name
    for name in NAMES
    if name not in ("grid", "brute_force")
]
SMALL = {
    "parameters": {
        "model": [{"name": "resnet", "blocks": 1}, {"name": "mlp"}],
        "width": [1, 2, 3],
        "blocks": [[1, 1], [1, 2], 1, 2],
        "depth": {"low": 0.0, "high": 0.6, "step": 0.2},
    },
    "conditions": {"blocks": {"model": "resnet"}, "depth": {"model": "mlp", "width": [1, 3]}},
}
"""12 points of a resnet, 4 + 1 + 4 of an mlp."""
ENDLESS = {"parameters": {"x": {"low": 0.0, "high": 1.0}, "n": {"low": 1, "high": 9}}}


def study_of(space, **search):
    document = SEARCHED.model_dump()
    document["space"] = space
    document["search"] |= {"trials": 10} | search
    return Study.model_validate(document)


def judged(params, count):
    """Give the objectives of a configuration values that a model can learn from."""
    number = sum(value for value in params.values() if isinstance(value, int | float))
    return [float(number), -float(len(params))][:count]


@contextmanager
def optuna_study(config: Study):
    directions = ["minimize"] * len(config.search.objectives)
    with warnings.catch_warnings():
        # What is experimental about a sampler was accepted when it was made.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = InMemoryStorage()
        sampler = make_sampler(config)
        yield optuna.create_study(storage=storage, directions=directions, sampler=sampler)


def draw(config: Study, count):
    drawn = []

    def objective(trial: optuna.Trial):
        drawn.append(suggest(trial, config.space))
        return judged(drawn[-1], len(config.search.objectives))

    with optuna_study(config) as study:
        for _ in range(count):
            study.optimize(objective, n_trials=1)
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [["val_error"], ["val_error", "macs"]], ids=len)
@pytest.mark.parametrize("name", NAMES)
def test_a_small_space_is_gone_through_once(name, objectives: list[str]):
    config = study_of(SMALL, sampler=name, objectives=objectives)
    size = space_size(config.space)
    assert size == 21
    drawn = [key_of(params) for params in draw(config, size)]
    assert len(set(drawn)) == size
    assert set(drawn) == {key_of(point) for point in points(config.space)}


@pytest.mark.parametrize("name", SAMPLING)
def test_a_space_without_end_is_drawn_from(name):
    drawn = draw(study_of(ENDLESS, sampler=name), 13)
    assert len({key_of(params) for params in drawn}) == 13
    assert all(0 <= params["x"] <= 1 and params["n"] in range(1, 10) for params in drawn)


@pytest.mark.parametrize("name", ["grid", "brute_force"])
def test_what_goes_through_all_points_needs_an_end_of_them(name):
    config = study_of(ENDLESS, sampler=name)
    with pytest.raises(ConfigError, match=f"{name} must have at most .* infinitely many; give"):
        make_sampler(config)


def test_a_grid_is_in_the_order_of_the_file():
    config = study_of(SMALL, sampler="grid")
    assert draw(config, 21) == list(points(config.space))


def test_a_model_is_followed_until_it_repeats_itself():
    """TPE's proposals are TPE's, as long as they are new: the wrapper must not draw for it."""
    config = study_of(ENDLESS, sampler="tpe", seed=3)
    ours = draw(config, 30)
    best = sorted(params["x"] for params in ours[10:])
    first = sorted(params["x"] for params in ours[:10])
    assert best[10] < first[5] / 2  # the sum of x and n is minimised


@pytest.mark.parametrize(
    ("name", "space", "count"),
    [
        ("random", ENDLESS, 3),
        *(
            pytest.param(name, space, 12, marks=pytest.mark.slow)
            for name, space in (
                *((name, SMALL) for name in ("brute_force", "grid", "tpe")),
                *((name, ENDLESS) for name in ("quasi_random", "tpe", "nsga2")),
            )
        ),
    ],
)
@pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
def test_a_study_that_is_stopped_draws_what_another_draws(name, space, count, storage):
    """Each trial by new processes, killed before their draw and in the middle of it."""
    config = study_of(space, sampler=name, objectives=["val_error", "macs"])
    whole, stopped = [], []
    for moments, drawn in ([None], whole), ([0, 1, 2, None], stopped):
        study = optuna.create_study(
            storage=storage, study_name=f"{moments}", directions=["minimize"] * 2
        )
        trials = Trials(study, storage)
        for moment in moments * count:
            study.sampler = make_sampler(config)
            trials.requeue()
            claimed = trials.claim(count)
            assert claimed is not None
            if moment is None:
                drawn.append(suggest(claimed.trial, config.space))
                study.tell(claimed.trial, judged(drawn[-1], 2))
                continue
            for key in list(config.space.parameters)[:moment]:
                if config.space.is_active(key, claimed.trial.params):
                    allowed = distribution(config.space, key)
                    claimed.trial._suggest(key, allowed)
            claimed.excuse()
            study.tell(claimed.trial, state=optuna.trial.TrialState.FAIL)
    assert stopped == whole
    assert len({key_of(params) for params in whole}) == count


def test_trials_that_are_drawn_at_one_moment_differ():
    config = study_of(ENDLESS, sampler="tpe")
    with optuna_study(config) as study:
        running = [study.ask() for _ in range(4)]
        assert len({suggest(trial, config.space)["x"] for trial in reversed(running)}) == 4


@pytest.mark.parametrize(
    ("space", "search", "expected"),
    [
        (SMALL, {"trials": "all"}, "brute_force"),
        (SMALL, {"trials": 12}, "brute_force"),
        (SMALL, {"trials": 9}, "tpe"),
        (ENDLESS, {"trials": 100}, "tpe"),
        (ENDLESS, {"trials": 2000}, "nsga2"),
        (ENDLESS, {"trials": 2000, "objectives": ["val_error"]}, "tpe"),
        (ENDLESS, {"objectives": ["val_error", "macs", "kept_macs", "parameters"]}, "nsga3"),
        (SMALL, {"trials": "all", "sampler": "gp"}, "gp"),
    ],
)
def test_auto(space, search, expected):
    assert resolve_sampler(study_of(space, **search)) == expected


def test_constraints_keep_a_model_away():
    """Two thirds of the space are infeasible; TPE learns it, and seldom goes there any more."""
    config = study_of(ENDLESS, sampler="tpe")
    late = []
    with optuna_study(config) as study:
        for number in range(60):
            trial = study.ask()
            params = suggest(trial, config.space)
            trial.set_constraint("n", params["n"] - 3)
            if params["n"] > 3:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, [params["x"], -float(params["n"])])
            late += [params["n"]] if number >= 30 else []
    assert sum(n <= 3 for n in late) > 15  # chance would give 10


def test_what_a_killed_worker_began_is_gone_on_with():
    """A retry is bound to the parameters that were written; the rest must fit, and be new."""
    config = study_of(SMALL, sampler="tpe")
    with optuna_study(config) as study:
        for _ in range(3):
            study.enqueue_trial({"model": "mlp", "width": 1})
            suggest(study.ask(), config.space)
        drawn = [trial.params for trial in study.trials]
    assert all(params["model"] == "mlp" and params["width"] == 1 for params in drawn)
    assert len({params["depth"] for params in drawn}) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("drawn", [0, 1])
def test_a_trial_that_was_cut_off_while_it_drew_is_no_obstacle(name, drawn):
    space = {"parameters": {"width": {"low": 1, "high": 4}, "depth": {"low": 1, "high": 3}}}
    config = study_of(space, sampler=name)
    seen = []

    def objective(trial: optuna.Trial):
        if trial.number == 1:
            if drawn:
                trial.suggest_int("width", 1, 4)
            raise RuntimeError("cut off")
        params = suggest(trial, config.space)
        seen.append(key_of(params))
        return judged(params, len(config.search.objectives))

    with optuna_study(config) as study:
        for _ in range(7):
            study.optimize(objective, n_trials=1, catch=(RuntimeError,))
    assert len(seen) == len(set(seen)) == 6


def test_a_configuration_that_is_taken_is_known_by_its_first_trial():
    config = study_of(SMALL)
    with optuna_study(config) as study:
        for params in ({"model": "mlp", "width": 2}, {"model": "mlp", "width": 2}):
            study.enqueue_trial(params)
        first, second = study.ask(), study.ask()
        assert first_with(suggest(first, config.space), first) is None
        assert first_with(suggest(second, config.space), second) == 0


@pytest.mark.slow
@pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["tpe"])
def test_four_workers_repeat_nothing(
    name,
    tmp_path,
    storage,
    start: Callable[..., subprocess.Popen[str]],
    wait_until: Callable[[Callable[[], object]], None],
):
    """30 trials over a space of 30 points: 0 repeated configurations."""
    workers = [start("search", 30, name, number) for number in range(1, 5)]
    wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 4)
    (tmp_path / "go").touch()
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
        assert "Traceback" not in errors, errors
    trials = optuna.load_study(study_name="s", storage=storage).trials
    drawn = {key_of(trial.params) for trial in trials}
    assert len(trials) == len(drawn) == space_size(SEARCHED.space) == 30
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
