"""What can be run: budgets, constraints, totals, and the sizes that `check` shows."""

import math
from pathlib import Path
from typing import Any

import golden
import pytest
import torch

import sculpt
from sculpt.config import Study
from sculpt.data import ImageSpec, TensorSpec
from sculpt.errors import ConfigError, InputError
from sculpt.pruning.patterns import Pattern
from sculpt.search.sampling.feasibility import (
    AUGMENTATIONS,
    check_candidate,
    check_study,
    measure_size,
    total_trials,
)
from sculpt.search.sampling.space import space_size
from sculpt.study_file import load_study
from sculpt.trial_setup import build_model
from studies import write_study

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ImageSpec(1, 8, 8, 10)
CIFAR10 = ImageSpec(3, 32, 32, 10)
LIMITS = {"max_dense_parameters": 30_000, "max_macs": 400_000, "max_memory": "3MiB"}


def judged(study: Study, **params: Any) -> Any:
    return check_candidate(study, study.with_parameters(params), DIGITS)


def test_the_published_sparsities():
    """METHOD: ResNet(k, n) pruned to ResNet20's 269,034 parameters."""
    study = load_study(ROOT / "studies" / "cifar10_smoke.yaml")
    document = check_study(study, CIFAR10)
    assert document["counting"] == "paper"
    assert document["budget"] == document["base"]["dense_parameters"] == 269_034
    assert document["space_size"] == len(document["corners"]) == 12
    sparsity = {
        (c["params"]["widening"], c["params"]["blocks"]): 100 * c["sparsity"]
        for c in document["corners"]
    }
    published = {(2, 3): 74.80, (4, 3): 93.68, (8, 3): 98.42, (2, 2): 60.44}
    assert {shape: sparsity[shape] for shape in published} == pytest.approx(published, abs=0.01)


def test_a_point_too_small_for_the_budget_is_said_to_be(tmp_path):
    study = load_study(write_study(tmp_path, budget=30_000, search__trials=3))
    document = check_study(study, DIGITS)
    shapes = [(c["params"]["widening"], c["params"]["blocks"]) for c in document["corners"]]
    feasible = dict(zip(shapes, [c["feasible"] for c in document["corners"]], strict=True))
    assert feasible == {(2, 1): False, (2, 2): True, (3, 1): True, (3, 2): True}
    small = document["corners"][shapes.index((2, 1))]
    assert "at most 18626" in small["reason"]
    assert small["sparsity"] < 0


@pytest.mark.parametrize("counting", ["paper", "total"])
def test_a_budget_is_broken_by_more_than_nothing_where_it_cannot_be_held(tmp_path, counting):
    study = load_study(write_study(tmp_path, counting=counting))
    size = measure_size(study.with_parameters({"widening": 2}), DIGITS).dense_parameters
    never_pruned = size - 18626  # widening 2, blocks 1
    assert (never_pruned > 0) == (counting == "total")
    for budget in (max(1, never_pruned), never_pruned + 1, 10_000, size, size + 1, 2 * size):
        found = judged(study.model_copy(update={"budget": budget}), widening=2)
        holds = never_pruned < budget <= size
        assert found.budget == budget
        assert (found.reason is None) == holds == (found.violations["budget"] <= 0)
    assert found.violations == {"budget": pytest.approx(1.0)}


def test_every_constraint_is_weighed_against_its_limit(tmp_path):
    study = load_study(write_study(tmp_path, space__constraints=LIMITS))
    size = measure_size(study.with_parameters({"widening": 3, "blocks": 2}), DIGITS)
    memory = size.memory_bytes
    assert memory == 16 * size.dense_parameters + 4 * 50 * size.cost.activations
    found = judged(study, widening=3, blocks=2)
    assert found.violations == {
        "budget": pytest.approx(4874 / size.dense_parameters - 1),
        "max_dense_parameters": pytest.approx(size.dense_parameters / 30_000 - 1),
        "max_macs": pytest.approx(size.cost.dense_macs / 400_000 - 1),
        "max_memory": pytest.approx(memory / (3 * 2**20) - 1),
    }
    assert found.violations["max_dense_parameters"] > 0
    taken = {"max_dense_parameters": size.dense_parameters, "max_macs": size.cost.dense_macs}
    for name, amount in (taken | {"max_memory": memory}).items():
        kept = name not in (found.reason or "")
        assert kept == (found.violations[name] <= 0)
        assert kept or f"but has {amount}" in found.reason
    small = judged(study, widening=2, blocks=1)
    assert small.reason is None
    assert list(small.violations) == list(found.violations)
    assert max(small.violations.values()) <= 0


@pytest.mark.parametrize("budget", ["base", 5000, {"sparsity": 0.5}])
def test_a_network_that_cannot_be_built_breaks_every_rule(tmp_path, budget):
    parameters = {"depth": [11, 10], "widening": [2, 3]}
    study = load_study(
        write_study(
            tmp_path,
            model={"name": "wide_resnet", "depth": 10, "stem_width": 4},
            budget=budget,
            space={"parameters": parameters, "constraints": LIMITS},
            search__trials="all",
        )
    )
    found = judged(study, depth=11)
    assert found.reason.startswith("depth must be 6n + 4")
    assert found.violations == dict.fromkeys(["budget", *LIMITS], 1.0)
    assert found.violations.keys() == judged(study, widening=2).violations.keys()
    assert all(map(math.isfinite, found.violations.values()))
    document = check_study(study, DIGITS)
    rows = [row for row in document["corners"] if row["params"]["depth"] == 11]
    assert [row["dense_parameters"] for row in rows] == [0, 0]
    assert not any(row["feasible"] for row in rows)
    assert document["trials"] == 1 + sum(row["feasible"] for row in document["corners"])


def test_check_and_run_refuse_a_base_alike(tmp_path):
    """For the same reason, although no point of the space can be built either."""
    model, space = {"name": "wide_resnet", "depth": 11}, {"parameters": {"widening": [2, 3]}}
    path = write_study(tmp_path, model=model, space=space)
    for asked in (sculpt.check, sculpt.run, sculpt.bench):
        with pytest.raises(InputError, match=r"^depth must be 6n \+ 4"):
            asked(path)
    assert list(tmp_path.iterdir()) == [path]


def test_constraints_count_wherever_feasible_points_do(tmp_path):
    limit = {"max_macs": 400_000}
    study = load_study(write_study(tmp_path, space__constraints=limit, search__trials="all"))
    document = check_study(study, DIGITS)
    feasible = [row["dense_macs"] <= 400_000 for row in document["corners"]]
    assert set(feasible) == {True, False}
    assert [row["feasible"] for row in document["corners"]] == feasible
    assert document["trials"] == total_trials(study, DIGITS) == 1 + sum(feasible)
    none = load_study(write_study(tmp_path, space__constraints={"max_macs": 1}))
    with pytest.raises(
        ConfigError, match=r"hold the budget and keep the constraints, but none does; .*max_macs"
    ):
        total_trials(none, DIGITS)


def test_memory_is_that_of_the_candidate_s_own_batches(tmp_path):
    parameters = {"training.batch_size": [10, 10_000], "training.momentum": [0.0, 0.9]}
    space = {"parameters": parameters, "constraints": {"max_memory": "20MiB"}}
    study = load_study(write_study(tmp_path, space=space, search__trials="all", model__widening=2))
    document = check_study(study, DIGITS)
    assert [row["feasible"] for row in document["corners"]] == [True, True, False, False]
    assert document["trials"] == 3
    few, many = (document["corners"][place]["memory_bytes"] for place in (0, 2))
    assert many > 20 * 2**20 > few
    assert "space.constraints.max_memory" in document["corners"][2]["reason"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 10**9}, "at least one point must hold the budget, but none does"),
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
def test_a_total_that_cannot_be_reached(tmp_path, changes, message):
    study = load_study(write_study(tmp_path, **changes))
    with pytest.raises(ConfigError, match=message):
        total_trials(study, DIGITS)


def test_sizes_are_measured_without_weights(tmp_path):
    study = load_study(write_study(tmp_path)).with_parameters({"widening": 200, "blocks": 9})
    size = measure_size(study, DIGITS)  # more than 100 million weights: on the meta device, at once
    assert size.dense_parameters > 10**8
    assert size.memory_bytes > 16 * size.dense_parameters


def test_a_list_of_budgets_is_sampled(tmp_path):
    study = load_study(write_study(tmp_path, budget=[2000, "base", 30_000], search__trials="all"))
    assert next(iter(study.space.parameters)) == "budget"
    document = check_study(study, DIGITS)
    assert document["budget"] is None
    assert document["space_size"] == 12
    expected = {2000: 2000, "base": 4874, 30_000: 30_000}
    for row in document["corners"]:
        assert row["budget"] == expected[row["params"]["budget"]]
        assert row["feasible"] == (row["budget"] <= row["dense_parameters"])
    assert document["trials"] == 12  # the base, and all but widening 2, blocks 1 at 30,000


def test_base_is_the_base_s_size_whatever_else_the_study_keeps(tmp_path):
    parameters = {"budget": ["base", 100], "widening": [2]}
    study = load_study(write_study(tmp_path, budget=5000, space__parameters=parameters))
    assert judged(study, budget="base", widening=2).budget == 4874
    assert judged(study, budget=100).budget == 100
    assert judged(study, widening=2).budget == 5000


def test_widening_may_be_fractional_by_steps_or_without(tmp_path):
    by_steps = {"low": 1.0, "high": 4.0, "step": 0.5}
    study = load_study(
        write_study(tmp_path, space__parameters={"widening": by_steps}, search__trials="all")
    )
    document = check_study(study, DIGITS)
    assert [row["params"]["widening"] for row in document["corners"]] == [
        1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0,
    ]  # fmt: skip
    sizes = [row["dense_parameters"] for row in document["corners"]]
    assert sizes == sorted(set(sizes))
    continuous = {"low": 1.0, "high": 4.0}
    study = load_study(write_study(tmp_path, space__parameters={"widening": continuous}))
    document = check_study(study, DIGITS)
    assert [row["params"]["widening"] for row in document["corners"]] == [1.0, 4.0]
    assert document["space_size"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "size"), [("resnet", 3, None), ("resnet_stages", [3, 3, 3], 81)]
)
def test_the_spaces_that_ship_fit_a_study_of_cifar10(tmp_path, name, blocks, size):
    study = load_study(
        write_study(
            tmp_path,
            data={"name": "cifar10"},
            model={"name": "resnet", "blocks": blocks},
            space=str(ROOT / "search_spaces" / f"{name}.yaml"),
            search__trials=40,
        )
    )
    document = check_study(study, CIFAR10)
    assert document["budget"] == golden.RESNET20_PAPER
    assert document["space_size"] == space_size(study.space) == size
    assert document["trials"] == 40
    assert {row["feasible"] for row in document["corners"]} == {True, False}


def test_all_is_the_base_and_every_feasible_point(tmp_path):
    study = load_study(write_study(tmp_path, search__trials="all"))
    assert total_trials(study, DIGITS) == 5
    assert total_trials(study.model_copy(update={"budget": 30_000}), DIGITS) == 4


def test_a_budget_that_a_pattern_has_no_room_for_is_refused_before_training(tmp_path):
    """Which widths hold it, sampled beside the granularity; a study that has none is refused."""
    granularity = {"pruning.granularity": ["weight", "2:4"], "widening": [2, 3]}
    study = load_study(
        write_study(tmp_path, budget=12_000, space={"parameters": granularity}, search__trials=4)
    )
    document = check_study(study, DIGITS)
    budget = document["budget"]
    found = {}
    for row in document["corners"]:
        params = study.with_parameters(row["params"])
        with torch.device("meta"):
            limits = Pattern(2, 4).limits(build_model(params, DIGITS))
        found[tuple(row["params"].values())] = row["feasible"]
        expected = row["params"]["pruning.granularity"] == "weight" or budget <= sum(
            limits.values()
        )
        assert row["feasible"] == expected
        if not expected:
            assert f"keeps at most {sum(limits.values())} (" in row["reason"]
            assert judged(study, **row["params"]).violations["budget"] > 0
    assert set(found.values()) == {True, False}
    path = write_study(
        tmp_path,
        budget=12_000,
        pruning={"granularity": "1:4"},
        space={"parameters": {"widening": [2]}},
    )
    with pytest.raises(ConfigError, match=r"must hold the budget, but none does.*granularity 1:4"):
        total_trials(load_study(path), DIGITS)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_an_augmentation_is_refused_for_is_looked_at_each_time(tmp_path, name):
    """Inputs that are no images take none; a point without it says nothing of one with it."""
    study = load_study(write_study(tmp_path))
    vector = TensorSpec((1, 8, 8), 10, "classes", pixels=False)
    on = {"flip": True, "translate": 1, "cutout": 2, "cutmix": 1.0}[name]
    off = {"flip": False, "translate": 0, "cutout": 0, "cutmix": 0.0}[name]
    for value in (off, on):
        candidate = study.with_parameters({"widening": 2, f"training.{name}": value})
        assert (check_candidate(study, candidate, vector).reason is None) is (value == off)
