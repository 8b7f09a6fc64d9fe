"""Search spaces: their points, their sizes, and what can be run in them."""

from pathlib import Path

import optuna
import pytest

from sculpt.config import Range, Space
from sculpt.data import ImageSpec
from sculpt.errors import ConfigError
from sculpt.search.samplers import make_sampler
from sculpt.search.space import (
    check_study,
    corners,
    measure_size,
    points,
    space_size,
    suggest,
    total_trials,
)
from sculpt.study_file import load_study
from studies import write_study

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ImageSpec(1, 8, 8, 10)


def test_points_are_the_product_of_the_axes() -> None:
    space = Space(parameters={"a": [1, 2], "b": Range(low=0, high=4, step=2)})
    assert space_size(space) == 6
    assert list(points(space)) == [{"a": a, "b": b} for a in (1, 2) for b in (0, 2, 4)]


def test_a_continuous_axis_has_no_size() -> None:
    space = Space(parameters={"rate": Range(low=0.1, high=0.3), "a": [1, 2]})
    assert space_size(space) is None
    assert len(list(corners(space))) == 4
    stepped = Space(parameters={"rate": Range(low=0.1, high=0.3, step=0.1)})
    assert [p["rate"] for p in points(stepped)] == pytest.approx([0.1, 0.2, 0.3])


def test_a_large_space_is_shown_by_its_extremes() -> None:
    space = Space(parameters={"a": Range(low=1, high=20), "b": Range(low=1, high=20), "c": [3]})
    ends = list(corners(space))
    assert ends == [{"a": a, "b": b, "c": 3} for a in (1, 20) for b in (1, 20)]


def test_a_sampler_draws_every_point_once(tmp_path: Path) -> None:
    config = load_study(write_study(tmp_path, search__trials="all"))
    drawn = []
    study = optuna.create_study()
    for trials_before in range(4):  # each time as a newly started process would
        study.sampler = make_sampler(config, trials_before)
        study.optimize(lambda t: drawn.append(suggest(t, config.space)) or 0.0, n_trials=1)
    assert sorted(map(str, drawn)) == sorted(map(str, points(config.space)))


def test_a_resumed_continuous_search_does_not_start_again(tmp_path: Path) -> None:
    space = {"training.learning_rate": {"low": 0.01, "high": 1.0, "log": True}}
    config = load_study(write_study(tmp_path, space__parameters=space))
    rates = set()
    for trials_before in range(5):
        study = optuna.create_study(sampler=make_sampler(config, trials_before))
        study.optimize(
            lambda t: rates.add(suggest(t, config.space)["training.learning_rate"]) or 0.0,
            n_trials=1,
        )
    assert len(rates) == 5


def test_the_published_sparsities() -> None:
    """METHOD: ResNet(k, n) pruned to ResNet20's 269,034 parameters."""
    study = load_study(ROOT / "studies" / "cifar10_smoke.yaml")
    document = check_study(study, ImageSpec(3, 32, 32, 10))
    assert document["counting"] == "paper"
    assert document["budget"] == document["base"]["dense_parameters"] == 269_034
    assert document["space_size"] == len(document["corners"]) == 12
    sparsity = {
        (c["params"]["widening"], c["params"]["blocks"]): 100 * c["sparsity"]
        for c in document["corners"]
    }
    published = {(2, 3): 74.80, (4, 3): 93.68, (8, 3): 98.42, (2, 2): 60.44}
    assert {shape: sparsity[shape] for shape in published} == pytest.approx(published, abs=0.01)


def test_a_point_too_small_for_the_budget_is_said_to_be(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, budget=30_000, search__trials=3))
    document = check_study(study, DIGITS)
    shapes = [(c["params"]["widening"], c["params"]["blocks"]) for c in document["corners"]]
    feasible = dict(zip(shapes, [c["feasible"] for c in document["corners"]], strict=True))
    assert feasible == {(2, 1): False, (2, 2): True, (3, 1): True, (3, 2): True}
    small = document["corners"][shapes.index((2, 1))]
    assert "at most 18626" in small["reason"]
    assert small["sparsity"] < 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 10**9}, "at least one point must hold the budget"),
        ({"search__trials": 6}, "at most 5 .the base and 4 feasible points"),
        (
            {
                "search__trials": "all",
                "space__parameters": {"training.learning_rate": {"low": 0.1, "high": 0.2}},
            },
            "must be a number",
        ),
    ],
)
def test_a_total_that_cannot_be_reached(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    study = load_study(write_study(tmp_path, **changes))
    with pytest.raises(ConfigError, match=message):
        total_trials(study, DIGITS)


def test_all_is_the_base_and_every_feasible_point(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, search__trials="all"))
    assert total_trials(study, DIGITS) == 5
    assert total_trials(study.model_copy(update={"budget": 30_000}), DIGITS) == 4


def test_sizes_are_measured_without_weights(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path)).with_parameters({"widening": 200, "blocks": 9})
    size = measure_size(study, DIGITS, 4874)  # 29 million weights: on the meta device, at once
    assert size.dense_parameters > 10**8
    assert size.memory_bytes(batch_size=1) > 16 * size.dense_parameters
