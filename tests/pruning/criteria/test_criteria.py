"""The contract of every criterion."""

import inspect
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from sculpt.errors import UnknownNameError
from sculpt.models.resnet import resnet
from sculpt.pruning.criteria import Batches
from sculpt.pruning.initializers import initialize
from sculpt.pruning.masks import keep_highest, prunable_parameters
from sculpt.registry import CRITERIA

NAMES = CRITERIA.names()
NEVER_NEGATIVE = {"connection_sensitivity", "magnitude", "random"}


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
    name: str, model: nn.Module | None = None, data: Batches = batches, seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return CRITERIA.get(name)(model or small_network(), data, generator)


def test_the_criteria_that_are_promised_are_there():
    assert {"connection_sensitivity", "magnitude", "random"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_options_are_keywords_with_types_and_defaults(self, name: str):
        signature = inspect.signature(CRITERIA.get(name))
        *required, generator = list(signature.parameters)[:3]

        assert (required, generator) == (["model", "batches"], "generator")
        for option in list(signature.parameters.values())[3:]:
            assert option.kind is inspect.Parameter.KEYWORD_ONLY, option
            assert option.default is not inspect.Parameter.empty, option
            assert option.annotation is not inspect.Parameter.empty, option

    def test_there_is_one_finite_score_for_each_prunable_parameter(self, name: str):
        parameters = prunable_parameters(small_network())

        scores = score(name)

        assert list(scores) == list(parameters)
        for key, tensor in scores.items():
            assert tensor.shape == parameters[key].shape, key
            assert tensor.is_floating_point(), key
            assert tensor.isfinite().all(), key
            assert not tensor.requires_grad, key
            assert tensor.dim() == 1 or tensor.unique().numel() > 1, key
            assert name not in NEVER_NEGATIVE or (tensor >= 0).all(), key

    @pytest.mark.parametrize("training", [True, False])
    def test_the_model_is_left_as_it_was(self, name: str, training: bool):
        model = small_network().train(training)
        model.classifier.train(not training)  # one module that differs from the others
        flags = {key: module.training for key, module in model.named_modules()}
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        tracking = [m.track_running_stats for m in model.modules() if hasattr(m, "running_var")]

        score(name, model)

        assert {key: module.training for key, module in model.named_modules()} == flags
        assert tracking == [
            m.track_running_stats for m in model.modules() if hasattr(m, "running_var")
        ]
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[key]), key
        for key, parameter in model.named_parameters():
            assert parameter.grad is None, key
            assert parameter.requires_grad, key

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

    def test_the_training_flag_does_not_matter(self, name: str):
        training = score(name, small_network().train())
        inference = score(name, small_network().eval())

        for key in training:
            assert torch.equal(training[key], inference[key]), key

    def test_the_scores_are_not_the_models_own_tensors(self, name: str):
        model = small_network()
        scores = score(name, model)
        weight = model.classifier.weight.detach().clone()

        for tensor in scores.values():
            tensor.zero_()

        assert torch.equal(model.classifier.weight, weight)

    def test_the_scores_rank(self, name: str):
        masks = keep_highest(score(name), 200)
        assert sum(int(mask.sum()) for mask in masks.values()) == 200

    def test_the_default_device_does_not_matter(self, name: str):
        expected, model = score(name), small_network()
        data = list(batches())
        generator = torch.Generator().manual_seed(0)

        with torch.device("meta"):
            scores = CRITERIA.get(name)(model, lambda: data, generator)

        for key in expected:
            assert torch.equal(scores[key], expected[key]), key


@pytest.mark.parametrize("name", ["magnitude", "random"])
def test_these_look_at_no_images(name: str):
    without = score(name, data=list)
    for key, tensor in score(name).items():
        assert torch.equal(tensor, without[key]), key


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


def test_another_seed_draws_other_random_scores():
    first, other = score("random", seed=1), score("random", seed=2)
    for key in first:
        assert not torch.equal(first[key], other[key]), key


def test_an_unknown_criterion_is_refused():
    with pytest.raises(UnknownNameError, match=r"criterion must be one of .*magnitude.*'snip'"):
        CRITERIA.get("snip")
