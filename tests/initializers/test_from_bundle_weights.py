"""The state of a trained network, loaded bit for bit where it fits."""

from typing import Any

import pytest
import torch
from bundles import bits, masked_state, same_bits, sparse_resnet
from torch import nn

from sculpt.bundle import NETWORK_FILE, write_bundle
from sculpt.errors import InputError
from sculpt.initializers import initialize
from sculpt.initializers.trained import check_not_repaired
from sculpt.models.resnet import resnet


@pytest.fixture
def winner(tmp_path):
    """Return a folder as of an export; 90 % of its weights are 0."""
    model, masks = trained()
    write_bundle(tmp_path / NETWORK_FILE, model, masks, {})
    return tmp_path


def trained() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model, masks = sparse_resnet(density=0.1)
    with torch.no_grad():  # biases that are not 0, where they are kept
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.25).mul_(masks.get(name, torch.ones(())))
    return model, masks


def other(channels: int = 1, classes: int = 10, **options: Any) -> nn.Module:
    return resnet(channels, classes, stem_width=3, blocks=1, **options)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_state_is_the_files_bit_for_bit_whatever_the_seed(winner, seed):
    model, path = other(), winner / NETWORK_FILE if seed else winner
    initialize(model, "from_bundle", seed=seed, bundle=str(path))  # warnings are errors
    expected = masked_state(*trained())
    assert same_bits(dict(model.state_dict()), expected)
    assert expected["stem.norm.running_mean"].any()
    assert expected["stem.norm.num_batches_tracked"] == 1
    assert expected["classifier.bias"].any()


@pytest.mark.parametrize(
    ("shape", "layer"), [({"classes": 7}, "classifier"), ({"channels": 3}, "stem.conv")]
)
def test_a_layer_of_another_shape_is_drawn_by_ldi(winner, shape, layer):
    model, drawn = other(**shape), other(**shape)
    with torch.no_grad():
        model.get_parameter(f"{layer}.bias").fill_(7)
    initialize(model, "from_bundle", seed=3, bundle=str(winner))
    initialize(drawn, "ldi", seed=3)
    expected = masked_state(*trained())
    for name, tensor in model.state_dict().items():
        source = drawn.state_dict() if name.startswith(f"{layer}.") else expected
        assert bits(tensor) == bits(source[name]), name


def test_a_batch_norm_of_another_shape_is_fresh(tmp_path):
    file = tmp_path / "a.safetensors"
    written = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    nn.init.constant_(written[1].bias, 2.0)
    write_bundle(file, written, {}, {})
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(5))
    nn.init.constant_(model[1].bias, 3.0)
    initialize(model, "from_bundle", seed=0, bundle=str(file))
    assert torch.equal(model[0].weight, written[0].weight)
    assert not model[1].bias.any()


def test_layers_that_ldi_cannot_draw_are_loaded(tmp_path):
    file = tmp_path / "a.safetensors"
    written, model = nn.Conv1d(2, 3, 5), nn.Conv1d(2, 3, 5)
    write_bundle(file, written, {}, {})
    initialize(model, "from_bundle", seed=0, bundle=str(file))
    assert same_bits(model.state_dict(), written.state_dict())


def test_a_network_in_another_precision_gets_the_same_values(winner):
    model = other().double()
    initialize(model, "from_bundle", seed=0, bundle=str(winner))
    assert model.classifier.weight.dtype == torch.float64
    assert torch.equal(model.classifier.weight.float(), trained()[0].classifier.weight)


def test_a_network_of_which_no_layer_fits_is_refused(winner):
    with pytest.raises(InputError, match=r"has none of the same name and shape: for stem\.conv"):
        initialize(resnet(1, 10, stem_width=4), "from_bundle", seed=0, bundle=str(winner))
    with pytest.raises(InputError, match="must have convolution or linear layers"):
        initialize(nn.BatchNorm2d(3), "from_bundle", seed=0, bundle=str(winner))


def test_a_network_that_diverged_is_refused(tmp_path):
    written = nn.Linear(3, 4)
    nn.init.constant_(written.bias, float("nan"))
    write_bundle(tmp_path / "a.safetensors", written, {}, {"diverged": True})
    with pytest.raises(InputError, match=r"some of bias in .*a\.safetensors are not: its training"):
        initialize(nn.Linear(3, 4), "from_bundle", seed=0, bundle=f"{tmp_path}/a.safetensors")


def test_a_file_that_is_not_there_is_refused_and_nothing_is_changed(tmp_path):
    model = other()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match="must be a readable safetensors file"):
        initialize(model, "from_bundle", seed=0, bundle=str(tmp_path / "none"))
    assert same_bits(model.state_dict(), before)


@pytest.mark.parametrize("repair", [True, "frobenius", "spectral", "exact"])
def test_trained_weights_are_not_repaired(repair):
    with pytest.raises(InputError, match=f"must be false .* but is {repair!r}: the repair would"):
        check_not_repaired("from_bundle", repair)
    check_not_repaired("from_bundle", False)
    check_not_repaired("ldi", repair)
