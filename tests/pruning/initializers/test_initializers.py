"""The contract of every initializer, and what `initialize` does with a whole network."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sculpt.errors import SculptWarning, UnknownNameError
from sculpt.models.resnet import resnet
from sculpt.pruning.initializers import initialize
from sculpt.registry import INITIALIZERS

WHOLE_NETWORKS = {"from_bundle"}
"""These set a whole network; they are called in another way, and draw nothing that fits."""
NAMES = sorted(set(INITIALIZERS.names()) - WHOLE_NETWORKS)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(12, 7),
    "conv 3x3": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "conv 1x1": lambda: nn.Conv2d(5, 3, 1),
    "conv 2x2": lambda: nn.Conv2d(3, 3, 2, bias=False),
    "strided": lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
}


def draw(name: str, layer: nn.Module, seed: int = 0) -> Tensor:
    return INITIALIZERS.get(name)(layer, torch.Generator().manual_seed(seed))


def small_network() -> nn.Module:
    return resnet(3, 10, blocks=1, stem_width=4)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.weight": layer.weight.detach().clone()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def test_the_initializers_that_are_promised_are_there():
    assert {"gaussian", "ldi", "variance_scaling"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_options_are_keywords_with_types_and_defaults(name: str):
    layer, generator, *options = inspect.signature(INITIALIZERS.get(name)).parameters.values()

    assert (layer.name, generator.name) == ("layer", "generator")
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY, option
        assert option.default is not inspect.Parameter.empty, option
        assert option.annotation is not inspect.Parameter.empty, option


@pytest.mark.parametrize("name", sorted(WHOLE_NETWORKS))
def test_those_of_whole_networks_have_options_that_are_keywords_with_types(name: str):
    model, seed, *options = inspect.signature(INITIALIZERS.get(name)).parameters.values()

    assert (model.name, seed.name) == ("model", "seed")
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY, option
        assert option.annotation is not inspect.Parameter.empty, option


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", NAMES)
class TestOfOneLayer:
    def test_the_weight_fits_the_layer(self, name: str, kind: str):
        layer = LAYERS[kind]()

        weight = draw(name, layer)

        assert weight.shape == layer.weight.shape
        assert weight.dtype == torch.float32
        assert weight.device == torch.device("cpu")
        assert weight.isfinite().all()
        assert weight.any()

    def test_the_layer_itself_is_only_read(self, name: str, kind: str):
        layer = LAYERS[kind]()
        before = {key: value.clone() for key, value in layer.state_dict().items()}

        draw(name, layer)

        for key, value in layer.state_dict().items():
            assert torch.equal(value, before[key])

    def test_the_seed_decides_and_the_old_weight_does_not(self, name: str, kind: str):
        first, again = LAYERS[kind](), LAYERS[kind]()
        assert not torch.equal(first.weight, again.weight)

        assert torch.equal(draw(name, first, seed=1), draw(name, again, seed=1))
        assert not torch.equal(draw(name, first, seed=1), draw(name, first, seed=2))

    def test_the_global_generator_is_not_used(self, name: str, kind: str):
        layer = LAYERS[kind]()
        state = torch.get_rng_state()

        draw(name, layer)

        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
class TestOfANetwork:
    def test_every_weight_is_drawn_and_repeats_with_the_seed(self, name: str):
        first, again, other = (small_network() for _ in range(3))
        built = weights(first)
        initialize(first, name, seed=3)
        initialize(again, name, seed=3)
        initialize(other, name, seed=4)

        for key, weight in weights(first).items():
            assert not torch.equal(weight, built[key]), key
            assert torch.equal(weight, weights(again)[key]), key
            assert not torch.equal(weight, weights(other)[key]), key

    def test_layers_of_one_shape_differ(self, name: str):
        model = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(3)))
        initialize(model, name, seed=0)

        first, second, third = weights(model).values()
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)

    def test_a_layer_does_not_depend_on_the_layers_before_it(self, name: str):
        narrow, wide = (resnet(3, 10, blocks=n, stem_width=4) for n in (1, 2))
        initialize(narrow, name, seed=0)
        initialize(wide, name, seed=0)

        key = "stages.2.0.second.conv.weight"
        assert torch.equal(weights(narrow)[key], weights(wide)[key])

    def test_biases_are_zero_and_batch_norm_is_fresh(self, name: str):
        model = small_network()
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        model(torch.randn(4, 3, 8, 8))  # moves the running statistics

        initialize(model, name, seed=0)

        for key, tensor in model.state_dict().items():
            kind = key.rsplit(".", 1)[1]
            if "norm" not in key:
                assert kind == "weight" or not tensor.any(), key
            elif kind in ("weight", "running_var"):
                assert (tensor == 1).all(), key
            else:  # bias, running_mean, num_batches_tracked
                assert not tensor.any(), key

    def test_the_default_device_changes_nothing(self, name: str):
        expected, model = small_network(), small_network()
        initialize(expected, name, seed=0)

        with torch.device("meta"):
            initialize(model, name, seed=0)

        for key, weight in weights(model).items():
            assert torch.equal(weight, weights(expected)[key]), key

    def test_a_network_in_another_precision_gets_the_same_draws(self, name: str):
        expected, model = small_network(), small_network().double()
        initialize(expected, name, seed=0)
        initialize(model, name, seed=0)

        for key, weight in weights(model).items():
            assert weight.dtype == torch.float64
            assert torch.equal(weight.float(), weights(expected)[key]), key

    def test_gradients_can_flow_afterwards(self, name: str):
        model = small_network()
        initialize(model, name, seed=0)

        model(torch.randn(2, 3, 8, 8)).sum().backward()

        assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_unknown_initializer_is_refused_and_the_known_ones_are_named():
    known = ", ".join(INITIALIZERS.names())
    with pytest.raises(UnknownNameError, match=f"initializer must be one of {known}, "):
        initialize(small_network(), "orthogonal", seed=0)


class TestWeightsThatAreZero:
    """METHOD §4: delta-orthogonal kernels are offered, with a warning."""

    def test_a_network_of_delta_kernels_is_warned_about_once(self):
        model = small_network()

        with pytest.warns(SculptWarning) as warned:
            initialize(model, "ldi", seed=0, kernel="delta")

        total = sum(weight.numel() for weight in weights(model).values())
        left = sum(int(weight.count_nonzero()) for weight in weights(model).values())
        (warning,) = warned
        message = str(warning.message)
        assert message.startswith(f"{total - left} of {total} weights were drawn as exactly 0.")
        assert f"no more than {left} weights to keep" in message
        assert "'block'" in message
        assert warning.filename == __file__  # the line that asked for it

    def test_each_call_warns(self):
        for seed in range(2):
            with pytest.warns(SculptWarning, match="exactly 0"):
                initialize(small_network(), "ldi", seed=seed, kernel="delta")

    def test_the_network_is_initialised_all_the_same(self):
        model = small_network()
        with pytest.warns(SculptWarning):
            initialize(model, "ldi", seed=0, kernel="delta")

        kernel = model.stages[2][0].second.conv.weight
        assert not kernel[:, :, 0].any()
        gram = kernel[:, :, 1, 1] @ kernel[:, :, 1, 1].T
        torch.testing.assert_close(gram, torch.eye(16), rtol=0, atol=1e-5)
        assert not model.classifier.bias.any()

    @pytest.mark.parametrize("name", NAMES)
    def test_no_initializer_as_it_is_makes_them(self, name: str):
        for seed in range(5):  # warnings are errors
            initialize(small_network(), name, seed=seed)

    def test_where_they_are_few_nothing_is_said(self):
        """1×1 kernels and linear layers have no zeros; here 3×3 kernels are the smaller part."""
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 100))
        initialize(model, "ldi", seed=0, kernel="delta")
        assert not model[0].weight[:, :, 0].any()
