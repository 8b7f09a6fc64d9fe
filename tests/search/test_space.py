"""Search spaces: their points, their sizes, and what samplers may draw from them."""

import itertools
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sculpt.config import Range, Space
from sculpt.errors import InputError
from sculpt.search.sampling.samplers import make_sampler
from sculpt.search.sampling.space import (
    MOST_CORNERS,
    check_params,
    corners,
    distribution,
    extremes,
    is_enumerable,
    points,
    space_size,
    suggest,
    values_of,
)
from sculpt.storage.optuna_names import experimental_accepted
from sculpt.study_file import load_study
from studies import write_study

CRITERIA = [{"name": "random"}, {"name": "synflow"}, {"name": "npb", "alpha": 0.1}]
CONDITIONAL = Space.model_validate(
    {
        "parameters": {
            "pruning.criterion": CRITERIA,
            "pruning.criterion.rounds": [50, 100],
            "blocks": [[1, 2, 3], [2, 2, 2]],
            "pruning.repair": [True, False],
            "deeper": {"low": 1, "high": 3},
        },
        "conditions": {
            "pruning.criterion.rounds": {"pruning.criterion": "synflow"},
            "pruning.repair": {"pruning.criterion": ["random", "npb(alpha=0.1)"]},
            "deeper": {"pruning.repair": False, "blocks": "[1, 2, 3]"},
        },
    }
)


def random_space(seed: int) -> Space:
    """Return a small space with conditions at random, on one another's values."""
    draw = random.Random(seed)
    parameters: dict[str, Any] = {}
    conditions: dict[str, Any] = {}
    for key in "abcde":
        listed = [[True, False], ["x", "y", "z"], [0.5, 1, 2], [[1, 2], [2, 1]]]
        ranges = [{"low": 1, "high": 3}, {"low": 0.1, "high": 0.5, "step": 0.2}]
        earlier = list(parameters)
        parameters[key] = draw.choice([*listed, *ranges])
        for parent in draw.sample(earlier, min(len(earlier), draw.choice([0, 1, 2]))):
            known = list(values_of(Space(parameters={parent: parameters[parent]}), parent))
            conditions.setdefault(key, {})[parent] = draw.sample(known, draw.choice([1, 2]))
    return Space.model_validate({"parameters": parameters, "conditions": conditions})


def distinct(found: Any) -> list[str]:
    return list(dict.fromkeys(map(str, found)))


def draw(space: Space, sampler: optuna.samplers.BaseSampler, trials: int) -> list[str]:
    drawn = []
    optuna.create_study(sampler=sampler).optimize(
        lambda trial: drawn.append(str(suggest(trial, space))) or 0.0, n_trials=trials
    )
    return drawn


def test_points_are_the_product_of_the_axes() -> None:
    space = Space(parameters={"a": [1, 2], "b": Range(low=0, high=4, step=2)})
    assert space_size(space) == 6
    assert list(points(space)) == [{"a": a, "b": b} for a in (1, 2) for b in (0, 2, 4)]


def test_what_is_not_sampled_is_left_out_of_a_point() -> None:
    found = list(points(CONDITIONAL))
    assert found[0] == {
        "pruning.criterion": "random",
        "blocks": "[1, 2, 3]",
        "pruning.repair": True,
    }
    assert found[1] == found[0] | {"pruning.repair": False, "deeper": 1}
    synflow = [point for point in found if point["pruning.criterion"] == "synflow"]
    assert [list(point) for point in synflow] == [
        ["pruning.criterion", "pruning.criterion.rounds", "blocks"]
    ] * 4
    # random and npb: 1 + 3 with the first blocks (repaired, or not and deeper), 2 with the others.
    assert space_size(CONDITIONAL) == len(found) == 2 * (4 + 2) + 4


@pytest.mark.parametrize("seed", range(20))
def test_points_are_the_product_once_what_is_not_sampled_is_gone(seed: int) -> None:
    space = random_space(seed)
    expected = []
    for values in itertools.product(*(values_of(space, key) for key in space.parameters)):
        point: dict[str, Any] = {}
        for key, value in zip(space.parameters, values, strict=True):
            if space.is_active(key, point):
                point[key] = value
        expected.append(point)
    found = list(map(str, points(space)))
    assert found == distinct(expected)
    assert space_size(space) == len(found)


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_samplers_draw_the_points_of_a_conditional_space_and_no_others(seed: int | None) -> None:
    space = CONDITIONAL if seed is None else random_space(seed)
    expected = sorted(map(str, points(space)))
    with experimental_accepted():
        exhausting = optuna.samplers.BruteForceSampler(seed=0)
    # It stops by itself: a trial more would be a point again.
    assert sorted(draw(space, exhausting, len(expected) + 3)) == expected
    if len(expected) < 40:
        drawn = draw(space, optuna.samplers.RandomSampler(seed=0), 30 * len(expected))
        assert sorted(distinct(drawn)) == expected


def test_a_continuous_axis_has_no_size() -> None:
    space = Space(parameters={"rate": Range(low=0.1, high=0.3), "a": [1, 2]})
    assert space_size(space) is None
    assert len(list(corners(space))) == 4
    alone = Space(parameters={"rate": Range(low=0.1, high=0.1), "a": [1, 2]})
    assert space_size(alone) == 2
    assert [point["rate"] for point in points(alone)] == [0.1, 0.1]
    stepped = Space(parameters={"rate": Range(low=0.1, high=0.3, step=0.1)})
    assert [point["rate"] for point in points(stepped)] == [0.1, 0.2, 0.3]


def test_steps_are_the_same_numbers_whoever_adds_them_up() -> None:
    space = Space(parameters={"a": Range(low=0.1, high=0.95, step=0.1)})
    assert list(values_of(space, "a")) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    drawn = draw(space, optuna.samplers.RandomSampler(seed=0), 200)
    assert sorted(distinct(drawn)) == [str(point) for point in points(space)]


def test_a_logarithmic_range_of_integers_has_all_of_them() -> None:
    space = Space(parameters={"a": Range(low=1, high=9, log=True)})
    assert list(values_of(space, "a")) == list(range(1, 10))
    assert space_size(space) == 9
    assert distribution(space, "a") == IntDistribution(1, 9, log=True)


def test_values_are_what_optuna_calls_them() -> None:
    parameters = {
        "a": Range(low=1, high=8, step=3),
        "b": Range(low=1.0, high=4.2, step=0.5),
        "c": Range(low=0.01, high=1, log=True),
        "d": [[1, 2], 3],
    }
    space = Space(parameters=parameters)
    assert [distribution(space, key) for key in parameters] == [
        IntDistribution(1, 7, step=3),
        FloatDistribution(1.0, 4.0, step=0.5),
        FloatDistribution(0.01, 1, log=True),
        CategoricalDistribution(["[1, 2]", 3]),
    ]


def test_large_spaces_are_counted_and_not_gone_through() -> None:
    many = Range(low=1, high=10**9)
    space = Space(parameters={"a": many, "b": many, "c": [1, 2]}, conditions={"c": {"a": 5}})
    assert space_size(space) == (10**9 - 1) * 10**9 + 2 * 10**9
    assert next(points(space)) == {"a": 1, "b": 1}
    pairs: dict[str, Any] = {}
    conditions: dict[str, Any] = {}
    for pair in range(40):
        pairs |= {f"on{pair}": [True, False], f"value{pair}": [1, 2, 3]}
        conditions[f"value{pair}"] = {f"on{pair}": True}
    assert space_size(Space(parameters=pairs, conditions=conditions)) == 4**40
    # All that is switched, after all switches: too much to keep in mind, so it is not counted.
    apart = Space(parameters=dict(sorted(pairs.items())), conditions=conditions)
    assert space_size(apart) is None
    assert not is_enumerable(apart)


def test_a_large_space_is_shown_by_its_extremes() -> None:
    space = Space(parameters={"a": Range(low=1, high=20), "b": Range(low=1, high=20), "c": [3]})
    ends = list(corners(space))
    assert ends == [{"a": a, "b": b, "c": 3} for a in (1, 20) for b in (1, 20)]


def test_the_extremes_keep_to_the_conditions() -> None:
    for point in extremes(CONDITIONAL):
        assert point in points(CONDITIONAL)
        assert ("deeper" in point) == (
            point["blocks"] == "[1, 2, 3]" and not point["pruning.repair"]
        )


def test_the_first_parameters_of_many_are_shown_at_both_ends() -> None:
    space = Space(parameters={key: Range(low=1, high=9) for key in "abcdefghijklmnopqrstuvwxyz"})
    ends = list(extremes(space))
    assert len(ends) == 64 <= MOST_CORNERS
    assert {key for key in space.parameters if len({end[key] for end in ends}) == 2} == {*"abcdef"}


def test_a_sampler_draws_every_point_once(tmp_path: Path) -> None:
    config = load_study(write_study(tmp_path, search__trials="all"))
    drawn = []
    study = optuna.create_study(sampler=make_sampler(config))
    study.optimize(lambda t: drawn.append(suggest(t, config.space)) or 0.0, n_trials=4)
    assert sorted(map(str, drawn)) == sorted(map(str, points(config.space)))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"pruning.criterion": "npb(alpha=0.1)", "pruning.repair": True},
        {"pruning.criterion": {"name": "npb", "alpha": 0.1}, "blocks": [1, 2, 3]},
        {"pruning.criterion.rounds": 50, "pruning.criterion": "synflow"},
        {"pruning.criterion": "random", "pruning.repair": False, "blocks": [1, 2, 3], "deeper": 3},
    ],
)
def test_parameters_may_be_given_as_they_are_or_by_their_label(params: dict[str, Any]) -> None:
    check_params(CONDITIONAL, params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"wider": 1}, "but got 'wider'; for other keys of the study use --set KEY=VALUE"),
        ({"blocks": [3, 2, 1]}, r"must be one of \[1, 2, 3\], \[2, 2, 2\], but got \[3, 2, 1\]"),
        ({"pruning.criterion": "npb"}, r"one of random, synflow, npb\(alpha=0.1\), but got 'npb'"),
        ({"pruning.repair": 1}, "must be one of True, False, but got 1"),
        ({"deeper": 4}, "must be whole and from 1 to 3, but got 4"),
        ({"deeper": 1.5}, "must be whole and from 1 to 3, but got 1.5"),
        ({"deeper": True}, "must be whole and from 1 to 3, but got True"),
        ({"deeper": "2"}, "must be whole and from 1 to 3, but got '2'"),
        (
            {"pruning.criterion.rounds": 50},
            "pruning.criterion.rounds must be given only where pruning.criterion is synflow, but "
            "pruning.criterion is not given; leave it out, or set params.pruning.criterion to that",
        ),
        (
            {"pruning.criterion.rounds": 50, "pruning.criterion": CRITERIA[2]},
            r"only where pruning.criterion is synflow, but pruning.criterion is npb\(alpha=0.1\)",
        ),
        (
            {
                "pruning.criterion": "random",
                "pruning.repair": True,
                "blocks": [1, 2, 3],
                "deeper": 1,
            },
            r"only where pruning.repair is False, blocks is \[1, 2, 3\], but pruning.repair is T",
        ),
    ],
)
def test_parameters_that_no_trial_has_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_params(CONDITIONAL, params)


def test_a_value_between_two_steps_is_refused() -> None:
    space = Space(parameters={"a": Range(low=1.0, high=4.0, step=0.5), "b": Range(low=1.0, high=4)})
    check_params(space, {"a": 2.5, "b": 2.3})
    check_params(space, {"a": 2, "b": 2})
    with pytest.raises(InputError, match=r"from 1.0 to 4.0 in steps of 0.5, but got 2.3"):
        check_params(space, {"a": 2.3})
