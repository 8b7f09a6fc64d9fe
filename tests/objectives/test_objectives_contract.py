"""What every registered objective must be, and what ours read from a real trial."""

import copy
import math
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pytest

from sculpt.config import Study
from sculpt.data import make_splits
from sculpt.data.digits import Digits
from sculpt.objectives import Objective
from sculpt.record import summarize
from sculpt.registry import OBJECTIVES
from sculpt.search.sampling.feasibility import check_study
from sculpt.trial import resolve_budget, run_seed
from studies import TINY

NAMES = OBJECTIVES.names()
BEFORE_TRAINING = [name for name in NAMES if OBJECTIVES.get(name).before_training]
ON_REQUEST = {"latency", "test_error"}
"""Not measured in every trial."""


@dataclass
class Finished:
    """The record of a trial of some seeds, and each seed's as it was before training."""

    record: dict[str, Any]
    sculpted: list[dict[str, Any]]


def finish(seeds, objectives, *, read_test):
    base = Study.model_validate(TINY)
    study = base.with_parameters({"widening": 2, "search.objectives": objectives})
    splits = make_splits(Digits().read(), train_images=200, validation_fraction=0.25)
    budget = resolve_budget(base, splits.spec)
    sculpted, runs = [], []
    for seed in seeds:
        outcome = run_seed(
            study,
            splits,
            role="candidate",
            budget=budget,
            seed=seed,
            on_sculpted=lambda record: sculpted.append(copy.deepcopy(record)),
            read_test=read_test,
        )
        runs.append(outcome.record)
    params = {"widening": 2}
    record = summarize(study, splits, runs, role="candidate", params=params, budget=budget)
    return Finished(record, sculpted)


@pytest.fixture(scope="module")
def whole():
    """A candidate of two seeds of which everything was measured."""
    return finish([0, 1], ["val_error", "latency"], read_test=True)


@pytest.fixture(scope="module")
def plain():
    """A candidate of one seed in a study that asks for nothing."""
    return finish([0], ["val_error"], read_test=False)


def is_number(value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(float(value))


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, whole, plain):
    objective = OBJECTIVES.get(name)
    assert issubclass(objective, Objective)
    assert not objective.__abstractmethods__
    assert objective.unit.strip()
    assert objective.direction in ("minimize", "maximize")
    assert isinstance(objective.before_training, bool)
    assert isinstance(objective.report_only, bool)
    assert (objective.__doc__ or "").strip()
    before = copy.deepcopy(whole.record)
    assert is_number(objective.read(whole.record))
    assert whole.record == before
    value = objective.read(plain.record)
    assert value is None if name in ON_REQUEST else is_number(value)


@pytest.mark.parametrize("name", BEFORE_TRAINING)
def test_what_is_known_before_training_is_read_there(name, whole, plain):
    """Off one seed's record, and to the same value as off the trial of that seed alone."""
    objective = OBJECTIVES.get(name)
    (sculpted,) = plain.sculpted
    assert "history" not in sculpted
    value = objective.read(sculpted)
    assert is_number(value)
    assert value == objective.read(plain.record)
    assert objective.read(whole.record) == pytest.approx(mean(map(objective.read, whole.sculpted)))


def test_what_is_known_when_and_what_is_chosen_by():
    assert set(NAMES) - set(BEFORE_TRAINING) == ON_REQUEST | {"training_seconds", "val_error"}
    assert [name for name in NAMES if OBJECTIVES.get(name).report_only] == ["test_error"]
    directions = {name: OBJECTIVES.get(name).direction for name in NAMES}
    assert [name for name in NAMES if directions[name] == "maximize"] == ["effective_parameters"]


def test_values_of_a_real_trial(whole):
    record = whole.record
    values = {name: OBJECTIVES.get(name).read(record) for name in NAMES}
    runs = record["runs"]
    assert values["val_error"] == pytest.approx((runs[0]["val_error"] + runs[1]["val_error"]) / 2)
    assert values["parameters"] == record["budget"]
    assert values["kept_macs"] == pytest.approx((runs[0]["kept_macs"] + runs[1]["kept_macs"]) / 2)
    assert runs[0]["kept_macs"] != runs[1]["kept_macs"]
    assert values["macs"] == runs[0]["dense_macs"] == runs[1]["dense_macs"]
    assert values["kept_macs"] < values["macs"]
    seconds = [run["seconds"]["train"] for run in runs]
    assert values["training_seconds"] == pytest.approx(sum(seconds) / 2)
    assert values["training_seconds"] < record["seconds"]
    assert values["test_error"] == pytest.approx(mean(run["test_error"] for run in runs))
    assert values["latency"] == pytest.approx(mean(run["latency"] for run in runs))
    assert values["latency"] > 0


def test_effective_parameters_are_those_after_the_last_step(whole):
    read = OBJECTIVES.get("effective_parameters").read
    record = copy.deepcopy(whole.record)
    for run, value in zip(record["runs"], (100, 205), strict=True):
        assert list(run["signal"]) == ["initial", "pruned", "repaired"]
        run["signal"]["repaired"]["effective_parameters"] = value
    assert read(record) == 152.5
    (seed, _) = record["runs"]
    del seed["signal"]["repaired"]
    assert read(seed) == seed["signal"]["pruned"]["effective_parameters"]
    del seed["signal"]["pruned"]  # as of the dense base
    assert read(seed) == seed["signal"]["initial"]["effective_parameters"] > 2 * 4874


def test_dense_memory_is_what_check_says(whole):
    study = Study.model_validate(TINY)
    corners = check_study(study, Digits().describe())["corners"]
    (corner,) = [row for row in corners if row["params"] == {"widening": 2, "blocks": 1}]
    assert OBJECTIVES.get("dense_memory").read(whole.record) == corner["memory_bytes"]


@pytest.mark.parametrize("name", sorted(ON_REQUEST | {"dense_memory"}))
def test_one_seed_without_a_value_leaves_none(name, whole):
    """Of a trial that went on from what an older version had written, for example."""
    first, second = (copy.deepcopy(run) for run in whole.record["runs"])
    second[name] = None
    study = Study.model_validate(whole.record["config"])
    splits = make_splits(Digits().read(), train_images=200, validation_fraction=0.25)
    record = summarize(
        study, splits, [first, second], role="candidate", params={}, budget=first["kept_parameters"]
    )
    assert OBJECTIVES.get(name).read(record) is None
