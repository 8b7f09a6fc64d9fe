"""The contract of every criterion."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from bundles import write_trained
from networks import appearance, count, equal, normal, small_resnet
from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import Batches, PruningTask
from sculpt.registry import CRITERIA

NAMES = CRITERIA.names()
DEFAULTS: dict[str, dict[str, Any]] = {
    "connection_sensitivity": {"targets": "uniform", "batch_norm": "identity"},
    "erk_random": {},
    "fisher": {"targets": "gt", "first_order": False, "group": 1, "batch_norm": "identity"},
    "from_bundle": {},
    "grasp": {"targets": "gt", "temperature": 200.0, "batch_norm": "identity"},
    "hutchinson": {"targets": "gt", "probes": 10, "temperature": 200.0, "batch_norm": "identity"},
    "iterative_snip": {"rounds": 100, "targets": "uniform", "batch_norm": "identity"},
    "magnitude": {},
    "npb": {},
    "prospr": {"targets": "gt", "meta_gradient": True, "batch_norm": "batch"},
    "random": {},
    "shuffled": {},
    "synflow": {"rounds": 100},
    "synflow_random_rounds": {},
}
"""The criteria that are promised, and options of theirs as published."""
WHOLE_MASKS = {"erk_random", "from_bundle", "npb", "shuffled"}
NEED_IMAGES = {
    "connection_sensitivity",
    "fisher",
    "grasp",
    "hutchinson",
    "iterative_snip",
    "prospr",
    "shuffled",
}
DRAW = {"erk_random", "hutchinson", "npb", "random", "shuffled"}
KEPT = 200


def small_network() -> nn.Module:
    """A network with biases that are not zero and batch-norm statistics that are not fresh."""
    model = small_resnet()
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                tensor.normal_(0, 0.1, generator=stream)
    return model


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(2)
    images = torch.randn(24, 1, 8, 8, generator=stream)
    labels = torch.randint(0, 10, (24,), generator=stream)
    return zip(images.split(10), labels.split(10), strict=True)


def score(
    name: str,
    model: nn.Module | None = None,
    data: Batches = batches,
    seed: int = 0,
    *,
    kept: int = KEPT,
    shape: tuple[int, ...] = (1, 8, 8),
    **options: Any,
) -> dict[str, Tensor]:
    criterion, model = CRITERIA.get(name), model or small_network()
    task = PruningTask(model, kept, data, torch.Generator().manual_seed(seed), shape)
    if "rounds" in inspect.signature(criterion).parameters:
        options.setdefault("rounds", 3)  # the default 100 would take seconds
    with TemporaryDirectory() as folder:
        if "bundle" in inspect.signature(criterion).parameters:
            write_trained(Path(folder, "trained.safetensors"), model, kept)
            options.setdefault("bundle", f"{folder}/trained.safetensors")
        return criterion(model, task, **options)


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_criteria_and_defaults_that_are_promised_are_there(name):
    parameters = inspect.signature(CRITERIA.get(name)).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_there_is_one_finite_score_for_each_prunable_parameter(self, name):
        parameters = prunable_parameters(small_network())
        scores = score(name)
        assert list(scores) == list(parameters)
        for key, tensor in scores.items():
            assert tensor.shape == parameters[key].shape, key
            assert tensor.device == parameters[key].device, key
            assert tensor.is_floating_point(), key
            assert tensor.isfinite().all(), key
            assert not tensor.requires_grad, key
            assert (tensor >= 0).all(), key
        weights = torch.cat([t.double().flatten() for t in scores.values()])
        assert weights.unique().numel() > 1

    def test_enough_weights_are_scored_and_exactly_those_of_a_whole_mask(self, name):
        model = small_network()
        scores = score(name, model)
        assert count(scores) == KEPT if name in WHOLE_MASKS else count(scores) >= KEPT
        assert count(PruningTask(model, KEPT).select(scores)) == KEPT

    @pytest.mark.parametrize("training", [True, False])
    def test_the_model_is_left_as_it_was(self, name, training):
        model = small_network().train(training)
        model.classifier.train(not training)  # one module that differs from the others
        before = appearance(model)
        scores = score(name, model)
        assert appearance(model) == before
        for tensor in scores.values():  # nor are they its own tensors
            tensor.zero_()
        assert appearance(model) == before

    @pytest.mark.parametrize("broken_batch", [0, 1, 5])
    def test_the_model_is_left_as_it_was_when_the_images_fail(self, name, broken_batch):
        model = small_network().train()
        before, seen = appearance(model), 0

        def failing() -> Iterator[tuple[Tensor, Tensor]]:
            nonlocal seen
            for batch in batches():
                if seen == broken_batch:
                    raise OSError("disk full")
                seen += 1
                yield batch

        try:
            score(name, model, failing)
        except OSError:
            assert name in NEED_IMAGES
        assert appearance(model) == before

    def test_the_generators_seed_decides_and_nothing_else_is_random(self, name):
        model = small_network()
        torch.manual_seed(5)
        state = torch.get_rng_state()
        first = score(name, model)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(6)
        assert equal(score(name, model), first)

    def test_another_seed_matters_to_those_that_draw(self, name):
        first, other = score(name, seed=1), score(name, seed=2)
        assert equal(first, other) == (name not in DRAW)
        if name == "random":
            assert not any(torch.equal(first[key], other[key]) for key in first)

    def test_the_training_flag_does_not_matter(self, name):
        training, inference = (score(name, small_network().train(mode)) for mode in (True, False))
        assert equal(training, inference)

    def test_everything_can_be_kept(self, name):
        model = small_network()
        total = sum(parameter.numel() for parameter in prunable_parameters(model).values())
        masks = PruningTask(model, total).select(score(name, model, kept=total))
        assert all(mask.all() for mask in masks.values())

    def test_fresh_biases_score_nothing_unless_they_are_drawn(self, name):
        model = small_network()
        for key, parameter in prunable_parameters(model).items():
            if key.endswith("bias"):
                nn.init.zeros_(parameter)
        for key, tensor in score(name, model).items():
            if key.endswith("bias") and name != "random":
                assert not tensor.any(), key

    def test_the_default_device_does_not_matter(self, name):
        expected, model = score(name), small_network()
        data = list(batches())
        with torch.device("meta"):
            scores = score(name, model, lambda: data)
        assert equal(scores, expected)

    @pytest.mark.parametrize("shape", [(6,), (2, 9), (2, 4, 4)], ids=len)
    def test_inputs_may_have_any_number_of_dimensions(self, name, shape):
        layers: dict[int, list[nn.Module]] = {
            1: [nn.Linear(6, 9)],
            2: [nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(21, 9)],
            3: [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.SELU(), nn.Flatten(), nn.Linear(12, 9)],
        }
        layers[len(shape)] += [nn.Tanh(), nn.Linear(9, 4, bias=False)]
        model = normal(nn.Sequential(*layers[len(shape)]))
        images = torch.randn(7, *shape, generator=torch.Generator().manual_seed(0))
        scores = score(name, model, lambda: [(images, torch.arange(7) % 4)], kept=30, shape=shape)
        assert count(scores) >= 30


@pytest.mark.parametrize("name", sorted(set(NAMES) - NEED_IMAGES))
def test_these_look_at_no_images(name):
    assert equal(score(name, data=list), score(name))


@pytest.mark.parametrize("name", sorted(NEED_IMAGES))
def test_these_refuse_to_score_without_images(name):
    with pytest.raises(InputError, match="at least one image, but got none"):
        score(name, data=list)


@pytest.mark.parametrize("name", ["npb", "synflow", "synflow_random_rounds"])
def test_these_refuse_to_score_without_the_shape_of_an_input(name):
    model = small_network()
    with pytest.raises(InputError, match=f"{name} must know the shape of an input.*input_shape="):
        CRITERIA.get(name)(model, PruningTask(model, KEPT))


def test_random_scores_are_uniform_distinct_and_never_zero():
    model = nn.Linear(300, 300)
    flat = torch.cat([tensor.flatten() for tensor in score("random", model).values()])
    assert flat.min() > 0
    assert flat.max() <= 1
    # Float32 has 2²⁴ values here: of 90,300 draws some 240 coincide, not thousands.
    assert flat.unique().numel() > 0.99 * flat.numel()
    # Five standard errors of a uniform mean and of a uniform variance.
    assert abs(flat.double().mean() - 1 / 2) < 5 / (12 * flat.numel()) ** 0.5
    assert abs(flat.double().var() - 1 / 12) < 5 / (180 * flat.numel()) ** 0.5


def test_a_draw_of_exactly_zero_is_no_missing_score(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    model = nn.Linear(3, 2)  # a draw in 2²⁴ is a zero, so a large layer has some
    assert all((tensor > 0).all() for tensor in score("random", model).values())
