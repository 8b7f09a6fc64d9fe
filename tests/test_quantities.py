"""What every quantity must be, what follows from it, and what ours read from a real trial."""

import math
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import pytest
from whole_records import whole_record, whole_run

from sculpt.config import EarlyStopping, Study
from sculpt.data import Splits, make_splits
from sculpt.data.digits import Digits
from sculpt.errors import ConfigError, NumericsError, StorageError
from sculpt.quantities import SIGNALS, WORST, Quantity, badness, proxies, register, stored
from sculpt.record import SculptedRecord, SeedRecord, TrialRecord
from sculpt.registry import OBJECTIVES, QUANTITIES
from sculpt.results.columns import described
from sculpt.run_folder import RunFolder
from sculpt.search.sampling.feasibility import check_study
from sculpt.storage.trial_files import summary
from sculpt.summary import summarize
from sculpt.trial import run_seed
from sculpt.trial_setup import TrialSetup, resolve_budget
from sculpt.typed_json import from_json, to_json
from studies import TINY

NAMES = OBJECTIVES.names()
BEFORE_TRAINING = [name for name in NAMES if OBJECTIVES.get(name).before_training]
ON_REQUEST = {"latency", "test_error"}
"""Not measured in every trial."""


@dataclass
class Finished:
    """The record of a trial of some seeds, and each seed's as it was before training."""

    setup: TrialSetup
    splits: Splits
    record: TrialRecord
    sculpted: list[SculptedRecord]


def finish(seeds: list[int], objectives: list[str], *, read_test: bool) -> Finished:
    base = Study.model_validate(TINY | {"diagnostics": {"jacobian_images": 2}})
    study = base.with_parameters({"widening": 2, "search.objectives": objectives})
    splits = make_splits(Digits().read(), train_images=200, validation_fraction=0.25)
    budget = resolve_budget(base, splits.spec)
    setup = TrialSetup(0, study, "candidate", {"widening": 2}, budget, seeds, read_test)
    sculpted: list[SculptedRecord] = []
    folder = RunFolder(on_sculpted=sculpted.append)
    runs = [run_seed(setup, splits, splits.train, seed, folder).record for seed in seeds]
    return Finished(setup, splits, summarize(setup, splits, runs), sculpted)


@pytest.fixture(scope="module")
def whole():
    """A candidate of two seeds of which everything was measured."""
    return finish([0, 1], ["val_error", "latency"], read_test=True)


@pytest.fixture(scope="module")
def plain():
    """A candidate of one seed in a study that asks for nothing."""
    return finish([0], ["val_error"], read_test=False)


def is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(float(value))


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_objectives(name, whole, plain):
    objective = OBJECTIVES.get(name)
    assert objective.unit.strip()
    assert objective.meaning.strip()
    assert objective.direction in ("minimize", "maximize")
    assert is_number(objective.read(whole.record))
    value = objective.read(plain.record)
    assert value is None if name in ON_REQUEST else is_number(value)


@pytest.mark.parametrize("name", BEFORE_TRAINING)
def test_what_is_known_before_training_is_read_there(name, whole, plain):
    """Off one seed's record, and to the same value as off the trial of that seed alone."""
    objective = OBJECTIVES.get(name)
    (sculpted,) = plain.sculpted
    assert type(sculpted) is SculptedRecord
    value = objective.read(sculpted)
    assert is_number(value)
    assert value == objective.read(plain.record)
    assert objective.read(whole.record) == pytest.approx(mean(map(objective.read, whole.sculpted)))


def test_what_is_known_when_and_what_is_chosen_by():
    assert set(NAMES) - set(BEFORE_TRAINING) == ON_REQUEST | {"training_seconds", "val_error"}
    assert [name for name in NAMES if OBJECTIVES.get(name).report_only] == ["test_error"]
    directions = {name: OBJECTIVES.get(name).direction for name in NAMES}
    assert [name for name in NAMES if directions[name] == "maximize"] == ["effective_parameters"]


def test_what_is_stored_is_in_the_summary_and_has_a_column(whole):
    found = summary(whole.record)
    for quantity in stored():
        assert found[quantity.name] == quantity.read(whole.record)
        assert described([quantity.name])[0][2] == quantity.meaning
    for step in ("initial", "pruned", "repaired"):
        assert all(is_number(found[f"{step}_{name}"]) for name in SIGNALS)


def test_proxies_are_read_after_the_last_step(whole):
    assert EarlyStopping(proxy="score_share").proxy == "score_share"
    seed = whole.sculpted[0]
    for name, quantity in proxies().items():
        assert quantity.before_training or name in SIGNALS
        assert is_number(badness(name, seed))
    last = seed.signal["repaired"]
    assert badness("effective_nodes", seed) == -last.effective_nodes
    assert last.jacobian
    assert badness("jacobian_mean", seed) == abs(math.log(last.jacobian.mean))
    for jacobian in (None, replace(last.jacobian, mean=0.0)):
        dark = replace(seed, signal={"pruned": replace(last, jacobian=jacobian)})
        assert badness("jacobian_mean", dark) == WORST


def test_one_entry_makes_a_quantity(monkeypatch, plain):
    for registry in (OBJECTIVES, QUANTITIES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    own = Quantity(
        "half_of_the_macs",
        "macs",
        "half of them",
        lambda record: record.kept_macs / 2,
        direction="minimize",
        before_training=True,
        proxy="minimize",
    )
    register(own)
    value = plain.record.kept_macs / 2
    assert OBJECTIVES.get("half_of_the_macs").read(plain.record) == value
    assert summary(plain.record)["half_of_the_macs"] == value
    assert described(["half_of_the_macs"])[0][2] == "half of them"
    assert badness("half_of_the_macs", plain.sculpted[0]) == value
    assert EarlyStopping(proxy="half_of_the_macs")
    with pytest.raises(ConfigError, match="'val_error' is registered by both"):
        register(replace(own, name="val_error"))


def test_values_of_a_real_trial(whole):
    record = whole.record
    values = {name: OBJECTIVES.get(name).read(record) for name in NAMES}
    assert record.objectives == {name: float(value) for name, value in values.items()}
    runs = record.runs
    assert values["val_error"] == pytest.approx((runs[0].val_error + runs[1].val_error) / 2)
    assert values["parameters"] == record.budget
    assert values["kept_macs"] == pytest.approx((runs[0].kept_macs + runs[1].kept_macs) / 2)
    assert runs[0].kept_macs != runs[1].kept_macs
    assert values["macs"] == runs[0].dense_macs == runs[1].dense_macs
    assert values["kept_macs"] < values["macs"]
    seconds = [run.seconds["train"] for run in runs]
    assert values["training_seconds"] == pytest.approx(sum(seconds) / 2)
    assert values["training_seconds"] < record.seconds
    assert values["test_error"] == pytest.approx((runs[0].test_error + runs[1].test_error) / 2)
    assert values["latency"] == pytest.approx((runs[0].latency + runs[1].latency) / 2)
    assert values["latency"] > 0


def test_effective_parameters_are_those_after_the_last_step(whole):
    read = OBJECTIVES.get("effective_parameters").read
    runs = []
    for run, value in zip(whole.record.runs, (100, 205), strict=True):
        assert list(run.signal) == ["initial", "pruned", "repaired"]
        last = replace(run.signal["repaired"], effective_parameters=value)
        runs.append(replace(run, signal=run.signal | {"repaired": last}))
    assert read(replace(whole.record, runs=runs)) == 152.5
    base = replace(runs[0], signal={"initial": runs[0].signal["initial"]})
    assert read(base) == base.signal["initial"].effective_parameters > 2 * 4874


def test_dense_memory_is_what_check_says(whole):
    study = Study.model_validate(TINY)
    corners = check_study(study, Digits().describe())["corners"]
    (corner,) = [row for row in corners if row["params"] == {"widening": 2, "blocks": 1}]
    assert OBJECTIVES.get("dense_memory").read(whole.record) == corner["memory_bytes"]


@pytest.mark.parametrize("name", sorted(ON_REQUEST | {"dense_memory"}))
def test_one_seed_without_a_value_leaves_none(name, whole):
    first, second = whole.record.runs
    runs = [first, replace(second, **{name: None})]
    study = whole.setup.study.with_parameters({"search.objectives": ["val_error"]})
    record = summarize(replace(whole.setup, study=study), whole.splits, runs)
    assert OBJECTIVES.get(name).read(record) is None
    assert name not in record.objectives
    if name == "latency":
        with pytest.raises(NumericsError, match=r"finite numbers, but are .*, without latency"):
            summarize(whole.setup, whole.splits, runs)


class TestRecordsAsJson:
    def test_there_and_back(self, whole):
        assert from_json(TrialRecord, to_json(whole.record), "it") == whole.record
        assert from_json(SculptedRecord, to_json(whole.sculpted[0]), "it") == whole.sculpted[0]

    def test_what_may_be_left_out(self):
        run = whole_run(0.1)
        assert to_json(from_json(SeedRecord, run, "it")) == run
        assert "latency_by" not in run

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"test_errors": ["0.1"]}, "its test_errors.0.* is not as written"),
            ({"of": 8}, "its of is not as written"),
            ({"seeds": None}, "its seeds is not as written"),
        ],
    )
    def test_a_damaged_one(self, changes, fault):
        with pytest.raises(StorageError, match=f"the record must be whole, but {fault} .*; mend"):
            from_json(TrialRecord, whole_record(**changes), "the record", "; mend it")

    def test_none_at_all(self):
        with pytest.raises(StorageError, match="the record must be JSON, but is not"):
            from_json(TrialRecord, b"{", "the record")
