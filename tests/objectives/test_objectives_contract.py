"""What every registered objective must be, and what ours read from a real trial."""

import copy
import math

import pytest

from sculpt.config import Study
from sculpt.data import make_splits
from sculpt.data.digits import Digits
from sculpt.objectives import Objective
from sculpt.record import summarize
from sculpt.registry import OBJECTIVES
from sculpt.trial import resolve_budget, run_seed
from studies import TINY


@pytest.fixture(scope="session")
def record():
    """The record of a candidate of two seeds."""
    base = Study.model_validate(TINY)
    study = base.with_parameters({"widening": 2})
    splits = make_splits(Digits().read(), train_images=200, validation_fraction=0.25)
    budget = resolve_budget(base, splits.spec)
    runs = [
        run_seed(study, splits, role="candidate", budget=budget, seed=seed).record
        for seed in (0, 1)
    ]
    params = {"widening": 2}
    return summarize(study, splits, runs, role="candidate", params=params, budget=budget)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_contract(name, record):
    objective = OBJECTIVES.get(name)
    assert issubclass(objective, Objective)
    assert not objective.__abstractmethods__
    assert objective.unit.strip()
    assert objective.direction in ("minimize", "maximize")
    assert (objective.__doc__ or "").strip()
    before = copy.deepcopy(record)
    value = objective.read(record)
    assert isinstance(value, int | float)
    assert not isinstance(value, bool)
    assert math.isfinite(float(value))
    assert record == before


def test_values_of_a_real_trial(record):
    values = {name: OBJECTIVES.get(name).read(record) for name in OBJECTIVES.names()}
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
