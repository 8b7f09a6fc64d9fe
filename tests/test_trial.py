"""A whole trial on digits: its budget to the weight, every field of its record, its pairing."""

import copy
import json
import math
import statistics
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

import pytest
import torch
from torch import nn

import sculpt.measuring
import sculpt.summary
import sculpt.trial
from sculpt.config import Study
from sculpt.diagnostics.cost import measure_cost
from sculpt.documents import assign
from sculpt.errors import BudgetError, DryRankingError, InputError, NumericsError
from sculpt.initializers import initialize
from sculpt.measuring import kept_scores
from sculpt.pruning.masks import count_parameters, prunable_parameters
from sculpt.quantities import SIGNALS
from sculpt.record import SeedRecord
from sculpt.registry import MODELS
from sculpt.run_folder import RunFolder
from sculpt.search.images import load_data
from sculpt.seeding import derive_seed
from sculpt.study_file import load_study
from sculpt.training.loop import train
from sculpt.training.loss_and_error import evaluate
from sculpt.trial_setup import TrialSetup, build_model, candidate_budget, resolve_budget
from sculpt.typed_json import from_json, to_json
from sculpt.version import VERSION
from studies import TINY, write_study

PAPER_BUDGET = 4874
"""Of ResNet(k 1, n 1), stem 4: weights and biases of conv and linear layers, summed by hand."""

QUANTITIES = {*SIGNALS} - {"jacobian_mean"} | {"jacobian"}


def study(**changes):
    """The tiny study, with Jacobians; a key's dots are written as two underscores."""
    document = copy.deepcopy(TINY) | {"diagnostics": {}}
    document["training"]["compact"] = True
    for key, value in changes.items():
        assign(document, key.replace("__", "."), value)
    return Study.model_validate(document)


def wide(**changes):
    return study(model__widening=2, **changes)


def plain(**changes):
    """`wide` without what takes longest: Jacobians and compaction."""
    return wide(**{"diagnostics__jacobian_images": 0, "training__compact": False} | changes)


def run_seed(settings, splits, budget=2000, *, role="candidate", seed=0, **options):
    """A trained network of one seed, with its record as JSON."""
    setup = TrialSetup(0, settings, role, {}, budget, [seed], options.pop("read_test", False))
    scoring = options.pop("scoring", splits.train)
    folder = RunFolder(options.pop("folder", None), settings.search.checkpoint_seconds, **options)
    outcome = sculpt.trial.run_seed(setup, splits, scoring, seed, folder)
    return replace(outcome, record=to_json(outcome.record))


def summarize(settings, splits, runs, budget=2000, *, role="candidate", params=None):
    """A trial's record as JSON, of its seeds'."""
    setup = TrialSetup(0, settings, role, params or {}, budget, [run["seed"] for run in runs])
    typed = [from_json(SeedRecord, run, "the record of a seed") for run in runs]
    return to_json(sculpt.summary.summarize(setup, splits, typed))


@pytest.fixture(scope="module")
def base(splits):
    return run_seed(study(), splits, role="base", budget=PAPER_BUDGET)


@pytest.fixture(scope="module")
def candidate(splits):
    return run_seed(wide(), splits, budget=PAPER_BUDGET)


@pytest.fixture(scope="module")
def unrepaired(splits):
    settings = wide(pruning__repair=False)
    return run_seed(settings, splits, budget=PAPER_BUDGET)


def kept(outcome):
    return sum(int(mask.sum()) for mask in outcome.masks.values())


def without_times(record):
    """The record without its wall-clock figures."""
    if isinstance(record, dict):
        return {
            key: without_times(value)
            for key, value in record.items()
            if key not in ("seconds", "images_per_second", "repair_seconds")
        }
    return [without_times(item) for item in record] if isinstance(record, list) else record


def revived(outcome):
    """How many pruned weights of the trained network are not exactly zero."""
    parameters = dict(outcome.model.named_parameters())
    return sum(
        int(parameters[name].detach()[~mask].count_nonzero())
        for name, mask in outcome.masks.items()
    )


def test_the_budget_base_is_the_size_of_the_dense_base(splits):
    weights = 4 * 9 + 2 * 4 * 4 * 9 + (8 * 4 + 8 * 8 + 16 * 8 + 16 * 16) * 9 + 10 * 16
    biases = 4 + 2 * (4 + 8 + 16) + 10
    assert weights + biases == PAPER_BUDGET
    assert resolve_budget(study(), splits.spec) == PAPER_BUDGET
    norms = 2 * (4 + 2 * (4 + 8 + 16))
    assert resolve_budget(study(counting="total"), splits.spec) == PAPER_BUDGET + norms


@pytest.mark.parametrize("outputs", ["classes + 1", "classes, steps"])
def test_a_family_that_has_not_one_logit_for_each_class_is_refused(splits, monkeypatch, outputs):
    def too_many(channels, classes, pixels):
        layers = [nn.Flatten(), nn.Linear(channels * pixels, 2 * (classes + 1))]
        cut = nn.Unflatten(1, (classes + 1, 2))
        last = [nn.AvgPool1d(2), nn.Flatten()] if outputs == "classes + 1" else []
        return nn.Sequential(*layers, cut, *last)

    monkeypatch.setattr(MODELS, "_entries", {"too_many": too_many})
    monkeypatch.setattr(MODELS, "_loaded", True)
    settings = study(model={"name": "too_many"})
    shape = r"\(1, 11\)" if outputs == "classes + 1" else r"\(1, 11, 2\)"
    message = f"one logit for each of the data's 10 classes, but too_many returns {shape}"
    with pytest.raises(InputError, match=message):
        resolve_budget(settings, splits.spec)
    with pytest.raises(InputError, match=f"{message}|must return logits"):
        run_seed(settings, splits, budget=500)


def test_a_base_stays_dense(base):
    assert base.record["kept_parameters"] == base.record["dense_parameters"] == PAPER_BUDGET
    assert all(mask.all() for mask in base.masks.values())
    assert base.record["kept_macs"] == base.record["dense_macs"]
    assert all(row["density"] == 1 and row["repair_steps"] == 0 for row in base.record["layers"])
    assert all(
        row["orthogonality_before"] == row["orthogonality_after"] for row in base.record["layers"]
    )
    assert base.record["seconds"].keys() == {"build", "initialise", "diagnose", "train"}


def test_a_candidate_keeps_exactly_the_budget(candidate):
    assert kept(candidate) == candidate.record["kept_parameters"] == PAPER_BUDGET
    assert candidate.record["dense_parameters"] == sum(
        parameter.numel() for parameter in prunable_parameters(candidate.model).values()
    )
    assert candidate.record["dense_parameters"] > 3 * PAPER_BUDGET
    assert revived(candidate) == 0


@pytest.mark.parametrize(
    ("fixture", "steps"),
    [
        ("base", ["initial"]),
        ("candidate", ["initial", "pruned", "repaired"]),
        ("unrepaired", ["initial", "pruned"]),
    ],
)
def test_signal_is_read_at_every_step_there_is(request, fixture, steps):
    signal = request.getfixturevalue(fixture).record["signal"]
    assert list(signal) == steps
    for reading in signal.values():
        assert reading.keys() == QUANTITIES
        assert all(math.isfinite(value) for key, value in reading.items() if key != "jacobian")
        jacobian = reading["jacobian"]
        assert jacobian.keys() == {"mean", "std", "min", "max", "condition", "images"}
        assert 0 < jacobian["min"] <= jacobian["mean"] <= jacobian["max"] < math.inf
        assert jacobian["condition"] == pytest.approx(jacobian["max"] / jacobian["min"])
        assert jacobian["images"] == 8


def test_signal_tells_what_pruning_and_repair_did(candidate, unrepaired):
    initial, pruned, repaired = candidate.record["signal"].values()
    assert pruned["effective_nodes"] <= initial["effective_nodes"]
    assert pruned["effective_parameters"] <= PAPER_BUDGET < initial["effective_parameters"]
    assert pruned["log10_paths"] < initial["log10_paths"]
    assert repaired["orthogonality_score"] < 0.5 * pruned["orthogonality_score"]
    for quantity in ("effective_nodes", "effective_parameters", "log10_paths"):
        assert repaired[quantity] == pruned[quantity]
    assert unrepaired.record["signal"]["pruned"] == pruned


def test_one_row_for_every_weight(candidate):
    rows = {row["name"]: row for row in candidate.record["layers"]}
    weights = {
        name: parameter
        for name, parameter in prunable_parameters(candidate.model).items()
        if name.endswith("weight")
    }
    assert list(rows) == list(weights)
    for name, row in rows.items():
        mask = candidate.masks[name]
        assert row["shape"] == list(weights[name].shape)
        assert row["kept"] == int(mask.sum())
        assert row["density"] == pytest.approx(row["kept"] / weights[name].numel())
        assert row["orthogonality_after"] >= row["orthogonality_bound"] - 1e-4
        assert row["orthogonality_after"] <= row["orthogonality_before"]
        assert row["orthogonality_bound"] >= 0
    assert any(row["repair_steps"] > 0 for row in rows.values())
    kept_biases = sum(
        int(mask.sum()) for name, mask in candidate.masks.items() if name.endswith("bias")
    )
    assert sum(row["kept"] for row in rows.values()) == PAPER_BUDGET - kept_biases
    assert sum(row["kept_macs"] for row in rows.values()) == candidate.record["kept_macs"]
    # The stem works on 8×8 positions, the classifier on one.
    assert rows["stem.conv.weight"]["kept_macs"] == 64 * rows["stem.conv.weight"]["kept"]
    assert rows["classifier.weight"]["kept_macs"] == rows["classifier.weight"]["kept"]
    scores = [row["orthogonality_before"] for row in rows.values()]
    pruned = candidate.record["signal"]["pruned"]["orthogonality_score"]
    assert statistics.mean(scores) == pytest.approx(pruned)
    scores = [row["orthogonality_after"] for row in rows.values()]
    repaired = candidate.record["signal"]["repaired"]["orthogonality_score"]
    assert statistics.mean(scores) == pytest.approx(repaired, abs=1e-5)


def test_without_repair_nothing_is_repaired(unrepaired):
    for row in unrepaired.record["layers"]:
        assert row["orthogonality_after"] == row["orthogonality_before"]
        assert row["repair_steps"] == 0
    assert "repair" not in unrepaired.record["seconds"]


def test_seconds_of_every_phase(candidate):
    phases = {"build", "initialise", "diagnose", "score", "mask", "repair", "compact", "train"}
    assert candidate.record["seconds"].keys() == phases
    assert all(seconds > 0 for seconds in candidate.record["seconds"].values())


def test_the_history_and_what_it_ends_in(splits):
    heard = []
    settings = wide(training__epochs=3)
    outcome = run_seed(settings, splits, seed=1, on_epoch=heard.append)
    record = outcome.record
    assert record["seed"] == 1
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3]
    assert [epoch.val_error for epoch in heard] == [row["val_error"] for row in record["history"]]
    for quantity in ("val_error", "val_loss", "train_loss"):
        assert record[quantity] == record["history"][-1][quantity]
    # The network handed back is the one that was measured last (perhaps in its compact form).
    loss, error = evaluate(outcome.model, splits.validation)
    assert loss == pytest.approx(record["val_loss"], rel=1e-5)
    assert error == record["val_error"]


def test_the_last_epoch_counts_not_the_best(splits, monkeypatch):
    def train_with_a_lucky_start(*arguments, **options):
        trained = train(*arguments, **options)
        first, *others = trained.history
        lucky = replace(first, val_error=0.0, val_loss=0.0, train_loss=0.0)
        return replace(trained, history=[lucky, *others])

    monkeypatch.setattr(sculpt.trial, "train", train_with_a_lucky_start)
    settings = plain(training__epochs=2)
    record = run_seed(settings, splits).record
    assert record["val_error"] == record["history"][1]["val_error"] > 0
    assert record["val_loss"] == record["history"][1]["val_loss"] > 0
    assert record["train_loss"] == record["history"][1]["train_loss"] > 0


@pytest.mark.parametrize(
    "criterion", ["connection_sensitivity", pytest.param("random", marks=pytest.mark.slow)]
)
def test_a_seed_repeats_the_trial(splits, criterion):
    settings = plain(
        pruning__criterion={"name": criterion}, training__translate=1, training__flip=True
    )
    one, again, other = (run_seed(settings, splits, budget=3000, seed=seed) for seed in (4, 4, 5))
    assert without_times(one.record) == without_times(again.record)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert any(not torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())
    assert one.record["val_loss"] != other.record["val_loss"]
    # Drawing from the global stream in between must not matter either.
    torch.manual_seed(99)
    assert without_times(run_seed(settings, splits, budget=3000, seed=4).record) == without_times(
        one.record
    )


def test_base_and_candidate_are_trained_with_the_seed_of_both(splits, monkeypatch):
    """The order and the augmentation of their images follow from it alone."""
    seen = []

    def recorded(*arguments, seed, **options):
        seen.append((arguments[2], seed))
        return train(*arguments, seed=seed, **options)

    monkeypatch.setattr(sculpt.trial, "train", recorded)
    run_seed(study(), splits, role="base", budget=PAPER_BUDGET, seed=6)
    run_seed(plain(), splits, budget=PAPER_BUDGET, seed=6)
    assert seen == [(splits, 6)] * 2


def test_the_test_images_are_never_read(splits):
    class Forbidden:
        def __getattribute__(self, name):
            raise AssertionError(f"{name} of the test images was read")

    blind = replace(splits, test=Forbidden())
    with pytest.raises(AssertionError, match="images of the test images was read"):
        _ = blind.test.images
    outcome = run_seed(plain(), blind)
    record = summarize(plain(), blind, [outcome.record])
    assert record["kept_parameters"] == 2000


@pytest.mark.parametrize(
    "criterion",
    [
        {"name": "connection_sensitivity", "targets": "uniform", "batch_norm": "identity"},
        {"name": "connection_sensitivity", "targets": "uniform", "batch_norm": "batch"},
        {"name": "connection_sensitivity", "targets": "gt", "batch_norm": "identity"},
        {"name": "connection_sensitivity", "targets": "gt", "batch_norm": "batch"},
        {"name": "random"},
        {"name": "magnitude"},
    ],
    ids=lambda criterion: "-".join(criterion.values()),
)
def test_every_way_to_prune_meets_the_budget(splits, criterion):
    settings = plain(pruning__criterion=criterion, training__nesterov=True)
    outcome = run_seed(settings, splits, budget=3001, seed=2)
    assert kept(outcome) == outcome.record["kept_parameters"] == 3001
    assert revived(outcome) == 0
    json.dumps(outcome.record, allow_nan=False)
    for row in outcome.record["layers"]:
        assert row["orthogonality_after"] >= row["orthogonality_bound"] - 1e-4
        assert row["orthogonality_after"] <= row["orthogonality_before"]


def test_options_reach_the_criterion(splits):
    masks = []
    for options in ({"targets": "uniform"}, {"targets": "gt"}, {"batch_norm": "batch"}):
        settings = plain(pruning__criterion={"name": "connection_sensitivity", **options})
        masks.append(run_seed(settings, splits, budget=3000).masks)
    for index, mask in enumerate(masks):
        for other in masks[:index]:
            assert any(not torch.equal(mask[name], other[name]) for name in mask)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("budget", ["base", 3456])
def test_the_counting_rule_total_is_met_exactly(splits, bias, budget):
    """Batch norm counts but is never pruned, so it is spent before the first weight."""
    changes = {"counting": "total", "model__conv_bias": bias, "budget": budget}
    size = resolve_budget(study(**changes), splits.spec)
    assert budget in ("base", size)
    outcome = run_seed(plain(**changes), splits, budget=size)
    norms = sum(
        parameter.numel()
        for name, parameter in outcome.model.named_parameters()
        if ".norm." in name
    )
    assert norms == 2 * (4 + 2 * (8 + 16 + 32))
    assert kept(outcome) + norms == size == outcome.record["kept_parameters"]
    assert outcome.record["dense_parameters"] == sum(
        parameter.numel() for parameter in outcome.model.parameters()
    )
    assert not any("norm" in name for name in outcome.masks)


def test_the_largest_magnitudes_of_the_initial_weights_are_kept(splits):
    """The pipeline in order: draw, score what was drawn, keep the best of the whole network."""
    settings = plain(pruning__criterion={"name": "magnitude"})
    outcome = run_seed(settings, splits, budget=2500, seed=3)
    model = build_model(settings, splits.spec)
    initialize(model, "ldi", seed=3)
    magnitudes = {
        name: parameter.detach().abs() for name, parameter in prunable_parameters(model).items()
    }
    flat = torch.cat([magnitude.flatten() for magnitude in magnitudes.values()])
    threshold = flat.sort(descending=True).values[2499]
    for name, magnitude in magnitudes.items():
        assert torch.equal(outcome.masks[name], magnitude >= threshold)


@pytest.mark.parametrize("repair", [True, False])
def test_training_starts_from_the_weights_that_were_described(splits, repair):
    """With a vanishing learning rate, what is handed back is what training was given."""
    settings = plain(
        pruning__repair=repair, training__learning_rate=1e-12, training__schedule="constant"
    )
    outcome = run_seed(settings, splits, budget=3000)
    parameters = dict(outcome.model.named_parameters())
    for row in outcome.record["layers"]:
        matrix = parameters[row["name"]].detach().double().flatten(1)
        residual = torch.linalg.matrix_norm(matrix @ matrix.T - torch.eye(len(matrix)))
        assert float(residual) == pytest.approx(row["orthogonality_after"], abs=1e-4)


@pytest.mark.parametrize("counting", ["paper", "total"])
def test_a_budget_that_the_network_cannot_meet(splits, counting):
    settings = study(counting=counting)
    dense = count_parameters(build_model(settings, splits.spec), counting)
    whole = run_seed(settings, splits, budget=dense)
    assert whole.record["kept_parameters"] == dense
    with pytest.raises(BudgetError, match=f"at most {dense} .* but got {dense + 1}"):
        run_seed(settings, splits, budget=dense + 1)
    never_pruned = {"paper": 0, "total": 120}[counting]
    with pytest.raises(BudgetError, match=f"above {never_pruned} .* but got {never_pruned}"):
        run_seed(settings, splits, budget=never_pruned)


@pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")
def test_a_ranking_that_runs_dry(splits):
    """Delta-orthogonal kernels are zero but for their centre: too few scores for this budget."""
    settings = wide(pruning__initializer={"name": "ldi", "kernel": "delta"})
    with pytest.raises(DryRankingError, match="at least 4874 scores must be non-zero"):
        run_seed(settings, splits, budget=PAPER_BUDGET)


def test_a_network_that_diverges(splits):
    settings = plain(training__learning_rate=1e30, training__epochs=3)
    record = run_seed(settings, splits, budget=3000).record
    assert record["diverged"]
    assert len(record["history"]) == 1
    assert record["val_error"] == 1
    whole = run_seed(plain(training__epochs=3), splits, budget=3000)
    runs = [record, whole.record]
    trial = summarize(settings, splits, runs, budget=3000)
    assert trial["epochs"] == 1 + 3, "of one that diverged, those that it was trained for"
    with pytest.raises(NumericsError, match=r"the loss of the dense base .* in epoch 1; lower"):
        run_seed(settings, splits, role="base", budget=3000)


def test_a_network_without_a_path(splits):
    """Five random weights connect nothing: no paths, and still a record that can be stored."""
    settings = plain(pruning__criterion={"name": "random"})
    outcome = run_seed(settings, splits, budget=5)
    assert kept(outcome) == 5
    for step in ("pruned", "repaired"):
        reading = outcome.record["signal"][step]
        assert reading["log10_paths"] is None
        assert reading["effective_nodes"] == reading["effective_parameters"] == 0
    record = summarize(settings, splits, [outcome.record], budget=5)
    assert '"log10_paths": null' in json.dumps(record, allow_nan=False)


@pytest.fixture
def joined(splits, candidate):
    """A trial of three seeds whose figures are set by hand, and the runs it was joined from."""
    runs = []
    for seed, (error, macs, seconds) in enumerate(
        [(0.1, 100, 1.0), (0.2, 200, 2.0), (0.6, 330, 6.0)]
    ):
        run = copy.deepcopy(candidate.record)
        run |= {"seed": seed, "val_error": error, "kept_macs": macs}
        run["seconds"] = {"build": 0.25, "train": seconds}
        runs.append(run)
    params = {"widening": 2}
    settings = wide(budget="base")
    trial = summarize(settings, splits, runs, params=params, budget=PAPER_BUDGET)
    return trial, runs, settings


def test_a_summary_joins_its_seeds(joined, splits):
    trial, runs, settings = joined
    assert trial["val_error"] == {
        "mean": pytest.approx(0.3),
        "std": pytest.approx(statistics.stdev([0.1, 0.2, 0.6])),
        "n": 3,
    }
    assert trial["val_errors"] == [0.1, 0.2, 0.6]
    assert trial["seeds"] == [0, 1, 2]
    assert trial["kept_macs"] == pytest.approx(210)
    assert trial["epochs"] == 3
    assert trial["training_seconds"] == pytest.approx(3)
    assert trial["seconds"] == pytest.approx(9.75)
    assert trial["runs"] == runs
    assert trial["kept_parameters"] == trial["budget"] == PAPER_BUDGET
    assert trial["sparsity"] == pytest.approx(1 - PAPER_BUDGET / trial["dense_parameters"])
    assert trial["params"] == {"widening": 2}
    assert (trial["study"], trial["role"], trial["counting"]) == ("tiny", "candidate", "paper")
    assert Study.model_validate(trial["config"]) == settings
    assert trial["data_fingerprint"] == splits.fingerprint
    assert trial["device"]["type"] == "cpu"
    assert torch.__version__.startswith(trial["versions"]["torch"])  # less the build
    assert json.loads(json.dumps(trial, allow_nan=False)) == trial


def test_a_package_that_is_only_on_the_path_knows_its_version(monkeypatch):
    """It has no metadata, which is noticed when the first trial is trained and written down."""
    found = sculpt.summary.version

    def without_ours(package):
        if package == "sculpt":
            raise PackageNotFoundError(package)
        return found(package)

    monkeypatch.setattr(sculpt.summary, "version", without_ours)
    described = sculpt.summary.describe_machine(torch.device("cpu"))
    assert described["versions"]["sculpt"] == VERSION == version("sculpt")


def test_one_seed_has_no_spread(splits, base):
    trial = summarize(study(), splits, [base.record], role="base", budget=PAPER_BUDGET)
    assert trial["val_error"] == {"mean": base.record["val_error"], "std": None, "n": 1}
    assert trial["sparsity"] == 0
    json.dumps(trial, allow_nan=False)


@pytest.mark.parametrize("missed", [0, 1])
def test_a_candidate_that_missed_its_budget_is_a_defect(joined, splits, missed):
    _, runs, settings = joined
    runs[missed]["kept_parameters"] -= 1
    with pytest.raises(ValueError, match=f"must keep {PAPER_BUDGET} parameters") as caught:
        summarize(settings, splits, runs, budget=PAPER_BUDGET)
    assert str(PAPER_BUDGET - 1) in str(caught.value)


def test_a_base_may_have_another_size_than_the_budget(splits, base):
    trial = summarize(study(), splits, [base.record], role="base", budget=1234)
    assert trial["budget"] == 1234
    assert trial["kept_parameters"] == PAPER_BUDGET


class TestBudgets:
    def test_a_sparsity_is_a_share_of_the_candidates_own_size(self, splits):
        settings = study(budget={"sparsity": 0.9})
        assert resolve_budget(settings, splits.spec) == round(0.1 * PAPER_BUDGET)
        candidate = settings.with_parameters({"widening": 2})
        dense = count_parameters(build_model(candidate, splits.spec), "paper")
        assert candidate_budget(settings, candidate, splits.spec) == round(0.1 * dense)
        sampled = settings.with_parameters({"budget.sparsity": 0.5})
        assert candidate_budget(settings, sampled, splits.spec) == round(0.5 * PAPER_BUDGET)

    def test_other_budgets_are_the_same_for_all(self, splits):
        for budget in ("base", 1234):
            settings = study(budget=budget)
            candidate = settings.with_parameters({"widening": 3})
            size = resolve_budget(settings, splits.spec)
            assert candidate_budget(settings, candidate, splits.spec) == size

    @pytest.mark.parametrize("granularity", ["kernel", "channel"])
    def test_what_whole_groups_leave_is_said(self, splits, granularity):
        settings = plain(pruning__granularity=granularity, training__epochs=0)
        outcome = run_seed(settings, splits, budget=3001)
        record = outcome.record
        assert kept(outcome) == record["kept_parameters"] == 3001 - record["unspent"]
        assert 0 <= record["unspent"] < 300
        summary = summarize(settings, splits, [record], budget=3001)
        assert summary["unspent"] == record["unspent"]
        lost = record | {"kept_parameters": record["kept_parameters"] - 1}
        with pytest.raises(ValueError, match="must keep 3001 parameters"):
            summarize(settings, splits, [lost], budget=3001)

    @pytest.mark.parametrize(
        "pruning", [{"granularity": "2:4"}, {"layer_budgets": "erk"}, {"layer_budgets": "balanced"}]
    )
    def test_patterns_and_layer_budgets_meet_it_exactly(self, splits, pruning):
        settings = plain(
            training__epochs=0, **{f"pruning__{key}": value for key, value in pruning.items()}
        )
        outcome = run_seed(settings, splits, budget=2000)
        assert kept(outcome) == outcome.record["kept_parameters"] == 2000
        assert outcome.record["unspent"] == 0
        if "granularity" in pruning:
            weight = outcome.masks["stages.0.0.first.conv.weight"]
            runs = weight[:, : weight.shape[1] // 4 * 4].unflatten(1, (-1, 4)).sum(2)
            assert 0 < runs.max() <= 2

    def test_an_effective_budget_is_spent_on_paths(self, splits):
        settings = plain(pruning__effective=True, training__epochs=0)
        record = run_seed(settings, splits, budget=1500).record
        assert record["kept_parameters"] == 1500
        assert record["signal"]["pruned"]["effective_parameters"] == 1500

    def test_the_price_of_macs_reaches_the_ranking(self, splits):
        costs = [
            run_seed(plain(pruning__mac_exponent=p, training__epochs=0), splits).record["kept_macs"]
            for p in (0.0, 1.0)
        ]
        assert costs[1] < 0.9 * costs[0]


class TestWhatIsScoredOn:
    def run(self, splits, **options):
        settings = plain(training__epochs=0, **options.pop("changes", {}))
        seed = options.pop("seed", 0)
        return run_seed(settings, splits, seed=seed, **options)

    def same(self, one, other):
        return all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())

    @pytest.mark.slow
    def test_a_sample_is_drawn_for_each_seed(self, splits):
        sampled = {"pruning__images": 40}
        one = self.run(splits, changes=sampled)
        assert self.same(one, self.run(splits, changes=sampled))
        assert not self.same(one, self.run(splits))
        assert self.same(self.run(splits, changes={"pruning__images": 10**6}), self.run(splits))
        numbered = replace(splits.train, labels=torch.arange(150))
        chosen = {tuple(numbered.sample(40, seed=seed).labels.tolist()) for seed in range(3)}
        assert len(chosen) == 3
        assert all(len(set(indices)) == 40 for indices in chosen)

    def test_other_images_may_be_scored_on(self, splits):
        inverted = replace(splits.train, images=255 - splits.train.images)
        one, other = self.run(splits), self.run(splits, scoring=inverted)
        assert not self.same(one, other)

    def test_the_repair_has_a_method(self, splits):
        by = {
            method: self.run(splits, changes={"pruning__repair": method})
            for method in (True, "frobenius", "exact")
        }
        signal = {method: outcome.record["signal"]["repaired"] for method, outcome in by.items()}
        assert signal[True] == signal["frobenius"] != signal["exact"]
        assert signal["exact"]["orthogonality_score"] <= signal[True]["orthogonality_score"]


def test_the_lowest_test_error_is_reported_on_request(splits):
    settings = study(training__epochs=3, training__protocol="lowest_test")
    record = run_seed(settings, splits, role="base", budget=PAPER_BUDGET).record
    errors = [epoch["test_error"] for epoch in record["history"]]
    assert len(errors) == 3
    assert record["test_error"] == min(errors)
    other = run_seed(study(), splits, role="base", budget=PAPER_BUDGET).record
    assert other["test_error"] is None


@pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")
def test_collapsed_layers_are_named(splits):
    settings = plain(
        pruning__criterion={"name": "magnitude"},
        pruning__initializer={"name": "variance_scaling"},
        training__epochs=0,
    )
    record = run_seed(settings, splits, budget=60).record
    empty = [row["name"] for row in record["layers"] if row["kept"] == 0]
    assert empty
    assert record["collapsed_layers"] == empty


def test_the_jacobian_may_be_left_out(splits):
    settings = wide(diagnostics__jacobian_images=0, training__epochs=0)
    record = run_seed(settings, splits).record
    assert all(step["jacobian"] is None for step in record["signal"].values())
    settings = wide(diagnostics__jacobian_images="all", training__epochs=0)
    record = run_seed(settings, splits, role="base").record
    assert record["signal"]["initial"]["jacobian"]["images"] == 150


def compactable(**changes):
    """A network with dead channels enough that it is trained without them."""
    return study(
        model__stem_width=16,
        model__widening=4,
        training__epochs=3,
        training__weight_average=0.5,
        search__checkpoint_seconds=0,
        **changes,
    )


def same_network(one, other):
    state, yours = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(state[name], yours[name]) for name in yours)


@pytest.mark.slow
def test_a_compact_network_is_trained_in_the_place_of_the_whole_one(splits):
    """The same errors to rounding, the full size back, and the plan in the record."""
    outcomes = [run_seed(compactable(training__compact=on), splits) for on in (True, False)]
    compact, whole = (outcome.record for outcome in outcomes)
    assert compact["compaction"]["used"]
    assert compact["compaction"]["difference"] < 1e-10
    assert compact["compaction"]["saving"] > 0.2
    assert compact["compaction"]["macs"] < compact["dense_macs"]
    assert whole["compaction"] is None
    for mine, yours in zip(compact["history"], whole["history"], strict=True):
        assert mine["train_loss"] == pytest.approx(yours["train_loss"], rel=1e-3)
        assert mine["val_loss"] == pytest.approx(yours["val_loss"], rel=1e-2)
    for name, mask in outcomes[0].masks.items():
        weight = outcomes[0].model.get_parameter(name)
        assert weight.shape == mask.shape
        assert not weight[~mask].any()
    assert kept(outcomes[0]) == 2000


@pytest.mark.slow
def test_an_interrupted_trial_goes_on_with_its_own_compact_network(splits, tmp_path, monkeypatch):
    whole = run_seed(compactable(), splits)
    assert whole.record["compaction"]["used"]

    def stop(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "trial"
    with pytest.raises(KeyboardInterrupt):
        run_seed(compactable(), splits, on_epoch=stop, folder=folder)
    with monkeypatch.context() as patch:
        # It is neither built, nor scored, nor repaired again.
        patch.setattr(sculpt.trial, "sculpt_network", lambda *_, **__: 1 / 0)
        resumed = run_seed(compactable(), splits, folder=folder)
    assert same_network(whole, resumed)
    assert resumed.record["training"]["resumed_at"] == [2]
    for key in ("val_loss", "train_loss", "signal", "compaction"):
        assert resumed.record[key] == whole.record[key]
    assert resumed.record["seconds"].keys() == whole.record["seconds"].keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the trial starts from its beginning")
@pytest.mark.parametrize("size", [0, 100, -10])
def test_a_damaged_folder_is_a_new_start(splits, tmp_path, size):
    first = run_seed(compactable(), splits, folder=tmp_path)
    file = tmp_path / "sculpted.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    again = run_seed(compactable(), splits, folder=tmp_path)
    assert same_network(first, again)
    assert again.record["training"]["resumed_at"] == []


class TestWhatIsKnownBeforeTraining:
    KNOWN = ("kept_parameters", "dense_macs", "kept_macs", "dense_memory", "score_share", "signal")

    def test_it_is_told_once_and_first(self, splits, tmp_path):
        """Also of a network that was sculpted before an interruption."""
        told = []

        def stop(epoch):
            told.append(epoch.epoch)
            raise KeyboardInterrupt

        changes = wide(training__epochs=2, search__checkpoint_seconds=0)
        with pytest.raises(KeyboardInterrupt):
            run_seed(changes, splits, on_sculpted=told.append, on_epoch=stop, folder=tmp_path)
        first, *epochs = told
        assert epochs == [1]
        told.clear()
        resumed = run_seed(
            changes,
            splits,
            on_sculpted=told.append,
            on_epoch=lambda epoch: told.append(epoch.epoch),
            folder=tmp_path,
        )
        assert resumed.record["training"]["resumed_at"] == [1]
        assert told == [first, 1, 2]
        first = to_json(first)
        assert "history" not in first
        assert all(first[key] == resumed.record[key] for key in self.KNOWN)

    def test_whoever_is_told_may_stop_it(self, splits, tmp_path, monkeypatch):
        def stop(record):
            raise StopIteration(record.kept_parameters)

        monkeypatch.setattr(sculpt.trial, "train", lambda *_, **__: 1 / 0)
        with pytest.raises(StopIteration, match="2000"):
            run_seed(wide(), splits, on_sculpted=stop, folder=tmp_path)
        assert (tmp_path / "sculpted.safetensors").exists()

    def test_memory_of_the_dense_network(self, base, candidate):
        """Four numbers a weight, and what a batch of 50 leaves for the backward pass."""
        for outcome in (base, candidate):
            record = outcome.record
            activations = measure_cost(outcome.model, (1, 8, 8)).activations
            dense = record["dense_parameters"]
            assert record["dense_memory"] == 4 * 4 * dense + 4 * 50 * activations
        assert candidate.record["dense_memory"] > 1.5 * base.record["dense_memory"]


class TestScores:
    MASKS: ClassVar = {"a": torch.tensor([True, False]), "b": torch.tensor([[True], [False]])}

    @pytest.mark.parametrize(
        ("a", "b", "kept", "share"),
        [
            ([1.0, 2.0], [[3.0], [4.0]], 4.0, 0.4),
            ([5.0, -2.0], [[3.0], [-1.0]], 8.0, 8 / 5),
            ([1.0, -2.0], [[3.0], [-2.0]], 4.0, None),  # all together 0
            ([0.0, 0.0], [[0.0], [0.0]], 0.0, None),
            ([1.0, math.inf], [[3.0], [4.0]], 4.0, None),
            ([1.0, -math.inf], [[3.0], [4.0]], 4.0, None),
            ([math.nan, 2.0], [[3.0], [4.0]], None, None),
            ([3e38, 3e38], [[3e38], [3e38]], 6e38, 0.5),  # beyond float32
        ],
    )
    def test_what_the_masks_keep_of_them(self, a, b, kept, share):
        scores = {"a": torch.tensor(a), "b": torch.tensor(b)}
        assert kept_scores(scores, self.MASKS) == (pytest.approx(kept), share)

    def test_of_a_trial(self, splits, base, candidate):
        """The highest are kept, so their share is larger than that of the weights."""
        record = candidate.record
        assert PAPER_BUDGET / record["dense_parameters"] < record["score_share"] < 1
        assert record["score_kept"] > 0
        assert base.record["score_kept"] is base.record["score_share"] is None
        settings = plain(pruning__criterion={"name": "magnitude"}, training__epochs=0)
        whole = run_seed(settings, splits).record
        model = build_model(settings, splits.spec)
        initialize(model, "ldi", seed=0)
        sizes = torch.cat([p.detach().abs().flatten() for p in prunable_parameters(model).values()])
        highest = sizes.double().sort(descending=True).values[:2000].sum()
        assert whole["score_kept"] == pytest.approx(float(highest))
        assert whole["score_share"] == pytest.approx(float(highest / sizes.double().sum()))

    def test_a_summary_has_their_means(self, joined, splits):
        _, runs, settings = joined
        for run, share in zip(runs, (0.1, 0.2, 0.6), strict=True):
            run |= {"score_share": share, "score_kept": 10 * share}
        runs[1]["score_kept"] = None
        trial = summarize(settings, splits, runs, PAPER_BUDGET)
        assert trial["score_share"] == pytest.approx(0.3)
        assert trial["score_kept"] is None
        assert trial["dense_memory"] == runs[0]["dense_memory"]
        assert trial["latency"] is None


class TestReadingTheTestImages:
    def run(self, splits, monkeypatch, **options):
        """Return the outcome, and which images were evaluated after training."""
        seen = []

        def recorded(model, images, **how):
            seen.append(images)
            return evaluate(model, images, **how)

        monkeypatch.setattr(sculpt.measuring, "evaluate", recorded)
        changes = options.pop("changes", {})
        settings = compactable(**changes)
        outcome = run_seed(settings, splits, **options)
        return outcome, seen

    def test_once_with_the_final_network(self, splits, monkeypatch):
        outcome, seen = self.run(splits, monkeypatch, read_test=True)
        assert outcome.record["compaction"]["used"]
        assert len(seen) == 1
        assert seen[0] is splits.test
        assert all(epoch["test_error"] is None for epoch in outcome.record["history"])
        _, error = evaluate(outcome.model, splits.test)
        assert outcome.record["test_error"] == error
        assert outcome.record["seconds"]["test"] > 0

    def test_not_unless_it_is_asked_for(self, splits, monkeypatch):
        outcome, seen = self.run(splits, monkeypatch)
        assert seen == []
        assert outcome.record["test_error"] is None

    @pytest.mark.slow
    def test_the_other_protocol_reads_them_anyway(self, splits, monkeypatch):
        changes = {"training__protocol": "lowest_test"}
        outcomes = []
        for read_test in (True, False):
            outcome, seen = self.run(splits, monkeypatch, changes=changes, read_test=read_test)
            assert seen == []
            outcomes.append(without_times(outcome.record))
        assert outcomes[0] == outcomes[1]
        errors = [epoch["test_error"] for epoch in outcomes[0]["history"]]
        assert outcomes[0]["test_error"] == min(errors)


def test_latency_is_measured_where_it_is_an_objective(splits, monkeypatch):
    """Of the network that is handed back, trained and whole again."""
    seen = []

    def measure(*arguments, runtime):
        seen.append((*arguments, runtime))
        return 0.125

    monkeypatch.setattr(sculpt.measuring, "measure_latency", measure)
    asked = compactable(
        search__objectives=["val_error", "latency"], search__latency_runtime="onnxruntime"
    )
    outcome = run_seed(asked, splits)
    ((model, masks, images, runtime),) = seen
    assert model is outcome.model
    assert masks is outcome.masks
    assert images.shape[1:] == (1, 8, 8)
    assert runtime == "onnxruntime"
    assert outcome.record["latency"] == 0.125
    assert outcome.record["latency_by"].startswith("onnxruntime, batch 1, 1 thread")
    other = run_seed(wide(), splits)
    assert len(seen) == 1
    assert other.record["latency"] is None
    runs = [outcome.record, outcome.record | {"latency": 0.375}]
    trial = summarize(asked, splits, runs)
    assert trial["latency"] == 0.25
    assert trial["latency_by"] == outcome.record["latency_by"]


def test_a_budget_given_as_a_number_is_taken_as_it_is(splits):
    assert resolve_budget(study(budget=1234), splits.spec) == 1234
    assert resolve_budget(wide(budget=1234, counting="total"), splits.spec) == 1234


@pytest.mark.parametrize("fixture", ["base", "candidate", "unrepaired"])
def test_a_record_is_json(request, fixture):
    record = request.getfixturevalue(fixture).record
    assert json.loads(json.dumps(record, allow_nan=False)) == record


class TestMovingMasks:
    """Masks that move in training, and weights that are drawn anew before it."""

    def moving(self, rule, **changes):
        return plain(training__moving={"rule": rule, "every": 1, "fraction": 0.5}, **changes)

    @pytest.mark.parametrize("rule", ["rigl", "set", "gradual_magnitude"])
    def test_the_record_is_of_the_masks_that_came_out(self, splits, rule):
        outcome = run_seed(self.moving(rule), splits)
        record, masks = outcome.record, outcome.masks
        assert sum(int(mask.sum()) for mask in masks.values()) == record["kept_parameters"] == 2000
        assert record["unspent"] == 0
        kept = {layer["name"]: layer["kept"] for layer in record["layers"]}
        assert kept == {name: int(masks[name].sum()) for name in kept}
        assert record["kept_macs"] == sum(layer["kept_macs"] for layer in record["layers"])
        assert record["moved"]["weights"] > 0
        dense = {name: masks[name].numel() for name in kept}
        start = record["moved"]["kept_at_start"]
        assert start == (dense if rule == "gradual_magnitude" else kept)
        assert ("pruned" in record["signal"]) == (rule != "gradual_magnitude")
        for name, mask in masks.items():
            assert not outcome.model.get_parameter(name)[~mask].any()
        assert summarize(self.moving(rule), splits, [record])["kept_parameters"] == 2000

    def test_what_is_still_kept_is_a_share_of_the_start(self, splits):
        still = run_seed(plain(), splits)
        outcome = run_seed(self.moving("set"), splits)
        assert "moved" not in still.record
        both = sum(int((still.masks[name] & mask).sum()) for name, mask in outcome.masks.items())
        assert outcome.record["moved"]["still_kept"] == both / 2000
        assert 0 < both < 2000

    def test_the_dense_base_does_not_move(self, splits):
        outcome = run_seed(self.moving("rigl"), splits, role="base", budget=PAPER_BUDGET)
        assert "moved" not in outcome.record
        assert all(mask.all() for mask in outcome.masks.values())

    @pytest.mark.parametrize("rule", ["rigl", "gradual_magnitude"])
    def test_an_interrupted_one_goes_on_with_its_own_masks(self, splits, tmp_path, rule):
        settings = self.moving(rule, training__epochs=3, search__checkpoint_seconds=0)
        whole = run_seed(settings, splits)

        def stop(epoch):
            if epoch.epoch == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_seed(settings, splits, folder=tmp_path, on_epoch=stop)
        resumed = run_seed(settings, splits, folder=tmp_path)
        assert resumed.record["training"]["resumed_at"] == [2]
        assert resumed.record["moved"] == whole.record["moved"]
        for name, mask in whole.masks.items():
            assert torch.equal(resumed.masks[name], mask)
            weight = resumed.model.get_parameter(name)
            assert torch.equal(weight, whole.model.get_parameter(name))


class TestRedraw:
    def test_only_the_kept_values_change(self, splits):
        again = {"name": "variance_scaling", "variant": "lecun"}
        untrained = {"training__epochs": 0, "pruning__repair": False}
        as_scored = run_seed(plain(**untrained), splits)
        redrawn = run_seed(plain(pruning__redraw=again, **untrained), splits)
        fresh = copy.deepcopy(redrawn.model)
        initialize(fresh, "variance_scaling", seed=derive_seed(0, "redraw"), variant="lecun")
        for name, mask in as_scored.masks.items():
            assert torch.equal(redrawn.masks[name], mask)
            weight = redrawn.model.get_parameter(name)
            assert torch.equal(weight, fresh.get_parameter(name) * mask)
            if mask.dim() > 1:
                assert not torch.equal(weight, as_scored.model.get_parameter(name))

    def test_the_repair_comes_after_it(self, splits):
        again = {"name": "gaussian", "variance": 9.0}
        record = run_seed(plain(pruning__redraw=again), splits).record
        pruned, repaired = (
            record["signal"][at]["orthogonality_score"] for at in ("pruned", "repaired")
        )
        assert pruned > 100
        assert repaired < 2

    def test_it_draws_the_dense_base(self, splits):
        again = {"name": "variance_scaling", "variant": "lecun"}
        model = run_seed(
            study(pruning__redraw=again, training__epochs=0),
            splits,
            role="base",
            budget=PAPER_BUDGET,
        ).model
        expected = copy.deepcopy(model)
        initialize(expected, "variance_scaling", seed=0, variant="lecun")
        assert all(map(torch.equal, model.parameters(), expected.parameters()))


def test_a_last_image_alone_is_no_batch_to_score_on(tmp_path):
    plain = load_study(write_study(tmp_path))
    splits = load_data(plain)
    study = load_study(write_study(tmp_path, pruning__batch_size=len(splits.train) - 1))
    setup = TrialSetup(0, study, "candidate", {}, resolve_budget(study, splits.spec), [0])
    task = setup.pruning_task(setup.build(splits), splits.train, 0)
    assert [len(labels) for _, labels in task.batches()] == [len(splits.train)]
