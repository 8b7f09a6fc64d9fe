"""The contract of every initializer, and what `initialize` does with a whole network."""

from collections.abc import Callable

import pytest
import torch
from networks import appearance, count, equal, normal
from torch import Tensor, nn

from sculpt.errors import SculptWarning, UnknownNameError
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet
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


def small_network(blocks: int = 1) -> nn.Module:
    return resnet(3, 10, blocks=blocks, stem_width=4)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.dim() > 1}


def initialized(model: nn.Module, name: str, seed: int = 0) -> dict[str, Tensor]:
    initialize(model, name, seed=seed)
    return weights(model)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_weight_fits_its_layer_and_the_seed_alone_decides(name, kind):
    layer, again = LAYERS[kind](), LAYERS[kind]()
    assert not torch.equal(layer.weight, again.weight)
    before, state = appearance(layer), torch.get_rng_state()
    weight = draw(name, layer, seed=1)
    assert appearance(layer) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert weight.shape == layer.weight.shape
    assert weight.dtype == torch.float32
    assert weight.device == torch.device("cpu")
    assert weight.isfinite().all()
    assert weight.any()
    assert torch.equal(draw(name, again, seed=1), weight)
    assert not torch.equal(draw(name, layer, seed=2), weight)


@pytest.mark.parametrize("name", NAMES)
class TestOfANetwork:
    def test_every_weight_is_drawn_and_repeats_with_the_seed(self, name):
        """Whatever the default device and the precision."""
        first, again, other, double = (small_network() for _ in range(4))
        built, drawn = weights(first), initialized(first, name, seed=3)
        others = initialized(other, name, seed=4)
        with torch.device("meta"):
            assert equal(initialized(again, name, seed=3), drawn)
        doubles = initialized(double.double(), name, seed=3)
        assert {weight.dtype for weight in doubles.values()} == {torch.float64}
        assert equal({key: weight.float() for key, weight in doubles.items()}, drawn)
        for key, weight in drawn.items():
            assert not torch.equal(weight, built[key]), key
            assert not torch.equal(weight, others[key]), key

    def test_layers_of_one_shape_differ(self, name):
        model = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(3)))
        first, second, third = initialized(model, name).values()
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)

    def test_a_layer_does_not_depend_on_the_layers_before_it(self, name):
        narrow, wide = (initialized(small_network(blocks), name) for blocks in (1, 2))
        key = "stages.2.0.second.conv.weight"
        assert torch.equal(narrow[key], wide[key])

    def test_biases_are_zero_and_batch_norm_is_fresh(self, name):
        model = normal(small_network())
        model(torch.randn(4, 3, 8, 8))  # moves the running statistics
        initialize(model, name, seed=0)
        assert all(parameter.requires_grad for parameter in model.parameters())
        for key, tensor in model.state_dict().items():
            kind = key.rsplit(".", 1)[1]
            if "norm" not in key:
                assert kind == "weight" or not tensor.any(), key
            elif kind in ("weight", "running_var"):
                assert (tensor == 1).all(), key
            else:  # bias, running_mean, num_batches_tracked
                assert not tensor.any(), key


def test_an_unknown_initializer_is_refused_and_the_known_ones_are_named():
    known = ", ".join(INITIALIZERS.names())
    with pytest.raises(UnknownNameError, match=f"initializer must be one of {known}, "):
        initialize(small_network(), "orthogonal", seed=0)


class TestWeightsThatAreZero:
    """METHOD §4: delta-orthogonal kernels are offered, with a warning."""

    def test_a_network_of_delta_kernels_is_warned_about_once(self):
        for seed in range(2):  # with each call
            model = small_network()
            with pytest.warns(SculptWarning) as warned:
                initialize(model, "ldi", seed=seed, kernel="delta")
            total = sum(weight.numel() for weight in weights(model).values())
            left = count(weights(model))
            (warning,) = warned
            message = str(warning.message)
            assert message.startswith(f"{total - left} of {total} weights were drawn as exactly 0.")
            assert f"no more than {left} weights to keep" in message
            assert "'block'" in message
            assert warning.filename == __file__  # the line that asked for it
            kernel = model.stages[2][0].second.conv.weight
            assert not kernel[:, :, 0].any()
            gram = kernel[:, :, 1, 1] @ kernel[:, :, 1, 1].T
            torch.testing.assert_close(gram, torch.eye(16), rtol=0, atol=1e-5)
            assert not model.classifier.bias.any()

    @pytest.mark.parametrize("name", NAMES)
    def test_no_initializer_as_it_is_makes_them(self, name):
        for seed in range(5):  # warnings are errors
            initialize(small_network(), name, seed=seed)

    def test_where_they_are_few_nothing_is_said(self):
        """1×1 kernels and linear layers have no zeros; here 3×3 kernels are the smaller part."""
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 100))
        initialize(model, "ldi", seed=0, kernel="delta")
        assert not model[0].weight[:, :, 0].any()
