"""The contract of every criterion."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from bundles import write_trained
from torch import Tensor, nn

from sculpt.errors import InputError, UnknownNameError
from sculpt.models.resnet import resnet
from sculpt.pruning.initializers import initialize
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import Batches, PruningTask
from sculpt.registry import CRITERIA
from sculpt.study_file import options_schema

NAMES = CRITERIA.names()
PROMISED = {
    "connection_sensitivity",
    "erk_random",
    "from_bundle",
    "grasp",
    "iterative_snip",
    "magnitude",
    "npb",
    "random",
    "shuffled",
    "synflow",
    "synflow_random_rounds",
}
WHOLE_MASKS = {"erk_random", "from_bundle", "npb", "shuffled"}
NEED_IMAGES = {"connection_sensitivity", "grasp", "iterative_snip", "shuffled"}
DRAW = {"erk_random", "npb", "random", "shuffled"}
MUST_BE_GIVEN = {("from_bundle", "bundle")}
"""Options without a default."""
KEPT = 200


def small_network() -> nn.Module:
    """A network with biases that are not zero and batch-norm statistics that are not fresh."""
    model = resnet(1, 10, blocks=1, stem_width=4)
    initialize(model, "ldi", seed=0)
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


def test_the_criteria_that_are_promised_are_there():
    assert set(NAMES) >= PROMISED


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_options_are_keywords_with_types_and_defaults(self, name: str):
        signature = inspect.signature(CRITERIA.get(name))

        assert list(signature.parameters)[:2] == ["model", "task"]
        for option in list(signature.parameters.values())[2:]:
            assert option.kind is inspect.Parameter.KEYWORD_ONLY, option
            given = (name, option.name) in MUST_BE_GIVEN
            assert (option.default is inspect.Parameter.empty) == given, option
            assert option.annotation is not inspect.Parameter.empty, option

    def test_a_study_file_may_set_its_options_and_the_defaults_are_valid(self, name: str):
        schema = options_schema(CRITERIA.get(name))
        given = {option: "winner" for criterion, option in MUST_BE_GIVEN if criterion == name}
        assert schema.model_validate(schema(**given).model_dump()) == schema(**given)

    def test_there_is_one_finite_score_for_each_prunable_parameter(self, name: str):
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

    def test_enough_weights_are_scored_and_exactly_those_of_a_whole_mask(self, name: str):
        scored = sum(int(tensor.count_nonzero()) for tensor in score(name).values())
        assert scored == KEPT if name in WHOLE_MASKS else scored >= KEPT

    @pytest.mark.parametrize("training", [True, False])
    def test_the_model_is_left_as_it_was(self, name: str, training: bool):
        model = small_network().train(training)
        model.classifier.train(not training)  # one module that differs from the others
        before = appearance(model)

        score(name, model)

        assert appearance(model) == before

    @pytest.mark.parametrize("broken_batch", [0, 1, 5])
    def test_the_model_is_left_as_it_was_when_the_images_fail(self, name: str, broken_batch: int):
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

    def test_the_generators_seed_decides_and_nothing_else_is_random(self, name: str):
        model = small_network()
        torch.manual_seed(5)
        state = torch.get_rng_state()
        first = score(name, model)
        assert torch.equal(torch.get_rng_state(), state)

        torch.manual_seed(6)
        again = score(name, model)

        for key in first:
            assert torch.equal(first[key], again[key]), key

    def test_another_seed_matters_to_those_that_draw(self, name: str):
        first, other = score(name, seed=1), score(name, seed=2)
        same = all(torch.equal(first[key], other[key]) for key in first)
        assert same == (name not in DRAW)

    def test_the_training_flag_does_not_matter(self, name: str):
        training = score(name, small_network().train())
        inference = score(name, small_network().eval())

        for key in training:
            assert torch.equal(training[key], inference[key]), key

    def test_the_scores_are_not_the_models_own_tensors(self, name: str):
        model = small_network()
        scores = score(name, model)
        before = appearance(model)

        for tensor in scores.values():
            tensor.zero_()

        assert appearance(model) == before

    def test_the_scores_rank(self, name: str):
        model = small_network()
        masks = PruningTask(model, KEPT).select(score(name, model))
        assert sum(int(mask.sum()) for mask in masks.values()) == KEPT

    def test_everything_can_be_kept(self, name: str):
        model = small_network()
        total = sum(parameter.numel() for parameter in prunable_parameters(model).values())
        masks = PruningTask(model, total).select(score(name, model, kept=total))
        assert all(mask.all() for mask in masks.values())

    def test_fresh_biases_score_nothing_unless_they_are_drawn(self, name: str):
        model = small_network()
        for key, parameter in prunable_parameters(model).items():
            if key.endswith("bias"):
                nn.init.zeros_(parameter)
        for key, tensor in score(name, model).items():
            if key.endswith("bias") and name != "random":
                assert not tensor.any(), key

    def test_the_default_device_does_not_matter(self, name: str):
        expected, model = score(name), small_network()
        data = list(batches())

        with torch.device("meta"):
            scores = score(name, model, lambda: data)

        for key in expected:
            assert torch.equal(scores[key], expected[key]), key

    @pytest.mark.parametrize("shape", [(6,), (2, 9), (2, 4, 4)], ids=len)
    def test_inputs_may_have_any_number_of_dimensions(self, name: str, shape: tuple[int, ...]):
        layers: dict[int, list[nn.Module]] = {
            1: [nn.Linear(6, 9)],
            2: [nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(21, 9)],
            3: [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.SELU(), nn.Flatten(), nn.Linear(12, 9)],
        }
        model = nn.Sequential(*layers[len(shape)], nn.Tanh(), nn.Linear(9, 4, bias=False))
        stream = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.5, generator=stream)
        images = torch.randn(7, *shape, generator=stream)

        scores = score(name, model, lambda: [(images, torch.arange(7) % 4)], kept=30, shape=shape)

        assert sum(int(tensor.count_nonzero()) for tensor in scores.values()) >= 30


def appearance(model: nn.Module) -> dict[str, Any]:
    """Return everything of a model that could be changed, as something that compares."""
    return {
        "state": {key: tensor.tolist() for key, tensor in model.state_dict().items()},
        "training": {key: module.training for key, module in model.named_modules()},
        "norms": [m.track_running_stats for m in model.modules() if hasattr(m, "running_var")],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "types": [type(module) for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


@pytest.mark.parametrize("name", sorted(set(NAMES) - NEED_IMAGES))
def test_these_look_at_no_images(name: str):
    without = score(name, data=list)
    for key, tensor in score(name).items():
        assert torch.equal(tensor, without[key]), key


@pytest.mark.parametrize("name", sorted(NEED_IMAGES))
def test_these_refuse_to_score_without_images(name: str):
    with pytest.raises(InputError, match="at least one image, but got none"):
        score(name, data=list)


@pytest.mark.parametrize("name", ["npb", "synflow", "synflow_random_rounds"])
def test_these_refuse_to_score_without_the_shape_of_an_input(name: str):
    model = small_network()
    with pytest.raises(InputError, match=f"{name} must know the shape of an input.*input_shape="):
        CRITERIA.get(name)(model, PruningTask(model, KEPT))


def test_magnitude_is_the_absolute_value():
    model = small_network()
    for key, tensor in score("magnitude", model).items():
        parameter = model.get_parameter(key)
        assert torch.equal(tensor, torch.where(parameter < 0, -parameter, parameter)), key


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


def test_a_draw_of_exactly_zero_is_no_missing_score(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    model = nn.Linear(3, 2)  # a draw in 2²⁴ is a zero, so a large layer has some
    assert all((tensor > 0).all() for tensor in score("random", model).values())


def test_another_seed_draws_other_random_scores_in_every_parameter():
    first, other = score("random", seed=1), score("random", seed=2)
    for key in first:
        assert not torch.equal(first[key], other[key]), key


def test_an_unknown_criterion_is_refused():
    with pytest.raises(UnknownNameError, match=r"criterion must be one of .*magnitude.*'snip'"):
        CRITERIA.get("snip")
