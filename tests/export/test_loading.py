"""Networks from files: those that were trained, and nothing that a file could smuggle in."""

import importlib
import sys

import pytest
import torch
from bundles import masked_state, same_bits
from networks import random_masks
from torch import nn

import sculpt
from sculpt.bundle import write_bundle
from sculpt.errors import InputError, SculptWarning
from sculpt.models import build_network
from sculpt.pruning.masks import apply_masks, dense_masks
from sculpt.registry import MODELS

INPUT = {"channels": 3, "height": 8, "width": 8, "classes": 5, "mean": [0.5] * 3, "std": [1.0] * 3}


def network(family="mlp", **options):
    model = build_network(family, channels=3, classes=5, pixels=64, **options)
    masks = random_masks(model, 0.3)
    apply_masks(model, masks)
    return model, masks


def about(family="mlp", **options):
    return {"model": {"name": family, "options": options}, "input": INPUT, "plugins": []}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


@pytest.mark.parametrize("family", MODELS.names())
def test_a_network_is_the_one_that_was_written(path, family):
    model, masks = network(family)
    metadata = about(family) | {"record": {"study": "tiny"}}
    write_bundle(path, model, masks, metadata)
    drawn = torch.get_rng_state()
    found = sculpt.load(path)
    assert torch.equal(drawn, torch.get_rng_state())
    assert same_bits(dict(found.model.state_dict()), masked_state(model, masks))
    assert same_bits(found.masks, masks)
    assert found.metadata == metadata
    assert found.record == {"study": "tiny"}
    assert not any(module.training for module in found.model.modules())
    side = 32 if family == "vgg16" else 8
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(found.model(images), model.eval()(images))


def test_options_and_folders_whatever_the_default_device(path):
    options = {"widening": 2.5, "blocks": [1, 2, 1], "activation": "tanh"}
    model, masks = network("resnet", **options)
    write_bundle(path, model, masks, about("resnet", **options))
    for place in (path, path.parent, str(path)):
        with torch.device("meta"):
            found = sculpt.load(place)
        assert {parameter.device.type for parameter in found.model.parameters()} == {"cpu"}
        assert same_bits(dict(found.model.state_dict()), masked_state(model, masks))
        assert found.record == {}


def refused(path):
    with pytest.raises(InputError) as caught:
        sculpt.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 900
    return message


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "has no model"),
        ({"model": None, "input": INPUT}, "has no model"),
        ({"model": {"name": "mlp", "options": {}}}, "has no input"),
        (about("cnn"), "one of .*, mlp, .* but is 'cnn'; name the module"),
        (about("../mlp"), "family must be one of"),
        (about(["mlp"]), "family must be one of"),
        (about("cnn") | {"plugins": ["lab.nets"]}, "'lab.nets'. Name the one"),
        (about("cnn") | {"plugins": "lab"}, "name the module that registers it"),
        (about("cnn") | {"plugins": [3, None]}, "plug-ins: 3, None. Name the"),
        (about(layers=4), r"for 5.weight it has .*\(5, 100\), and the network has .*\(100, 100\)"),
        (about("resnet"), "far larger than what is in the file"),
        (about(layers=2), "but for 3.weight it has .* of shape .*, and the network has .*"),
        (about(units=99), r"1.weight it has .*\(100, 192\), and the network has .*\(99, 192\)"),
        (about(wings=2), "options of mlp must fit it, but 'wings'"),
        (about(layers="3"), "options of mlp must fit it, but 'layers'"),
        (about(layers=True), "options of mlp must fit it, but 'layers'"),
        (about(layers=-1), "options of mlp must fit it, but 'layers'"),
        (about("wide_resnet", depth=11), r"cannot be built \(InputError: depth must be 6n \+ 4"),
        (about(channels=3), "options of mlp must fit it"),
        (about(layers=10**12), "options of mlp must fit it, but 'layers'"),
        (about(layers=900), "far larger than what is in the file"),
        (about(units=10**5), "far larger than what is in the file"),
        (about("resnet", blocks=200), "far larger than what is in the file"),
        (about("resnet", blocks=[200, 1, 1]), "far larger than what is in the file"),
        (about("resnet", blocks=[10**6, 1, 1]), "options of resnet must fit it, but 'blocks"),
        (about("resnet", blocks=[1] * 5), "options of resnet must fit it, but 'blocks"),
        (about("resnet", widening=1e300), "options of resnet must fit it, but 'widening'"),
        (about("resnet", widening=1e3), "far larger than what is in the file"),
        ({"model": {"name": "mlp"}, "input": INPUT}, "options of mlp must fit it, but 'they'"),
        ({"model": {"name": "mlp", "options": [1]}, "input": INPUT}, "options of mlp must fit it"),
        (about() | {"input": {}}, "input.channels must be a whole number .* but is None"),
        (about() | {"input": INPUT | {"channels": True}}, "input.channels .* but is True"),
        (about() | {"input": INPUT | {"height": 0}}, "input.height .* but is 0"),
        (about() | {"input": INPUT | {"width": 2**40}}, "input.width .* but is 1099511627776"),
        (about() | {"input": INPUT | {"classes": 5.0}}, "input.classes .* but is 5.0"),
        (about() | {"input": INPUT | {"height": 2**20}}, "far larger than what is in the file"),
    ],
)
def test_descriptions_that_do_not_fit(path, metadata, message):
    write_bundle(path, *network(), metadata)
    with pytest.raises(InputError, match=message):
        sculpt.load(path)
    refused(path)


def more(model, masks):
    model.register_buffer("more", torch.ones(3))


def missing(model, masks):
    model.get_submodule("5").register_parameter("bias", None)
    for name in list(masks)[1:]:
        del masks[name]


def other_types(model, masks):
    model.double()


def fewer_masks(model, masks):
    del masks["1.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (more, "for more it has torch.float32 of shape (3,), and the network has no"),
        (missing, "for 5.bias it has no such tensor, and the network has torch.float32"),
        (other_types, "torch.float64"),
        (fewer_masks, "one mask for each weight and bias"),
    ],
)
def test_tensors_and_masks_that_do_not_fit(path, change, message):
    model, masks = network()
    change(model, masks)
    write_bundle(path, model, masks, about())
    assert message in refused(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_none(path, value):
    model, masks = network()
    with torch.no_grad():
        model.get_parameter("3.weight")[masks["3.weight"]] = value
    write_bundle(path, model, masks, about())
    assert "finite numbers, but some of 3.weight are not" in refused(path)
    write_bundle(path, model, masks, about() | {"diverged": True})
    with pytest.warns(SculptWarning, match="this network diverged: some of 3.weight") as caught:
        found = sculpt.load(path)
    assert caught[0].filename == __file__
    assert same_bits(dict(found.model.state_dict()), masked_state(model, masks))


def test_files_that_do_not_say_enough(path):
    write_bundle(path, *network(), {"config": {"model": {"name": "mlp"}}})
    assert "build the network yourself" in refused(path)


def test_folders_without_a_network(tmp_path):
    with pytest.raises(InputError, match=r"network.safetensors: must be a readable"):
        sculpt.load(tmp_path)


PLUGIN = """
from torch import nn
from sculpt.registry import MODELS

@MODELS.register("one_layer")
def one_layer(channels, classes, pixels):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * pixels, classes))
"""


def test_plugins_are_never_imported_by_a_file(path, monkeypatch):
    (path.parent / "plugin_of_somebody.py").write_text(PLUGIN)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    metadata = about("one_layer") | {"plugins": ["plugin_of_somebody"]}
    write_bundle(path, model, dense_masks(model), metadata)
    monkeypatch.syspath_prepend(path.parent)
    message = refused(path)
    assert "'plugin_of_somebody'. Name the one that has the family (--plugins MODULE; in" in message
    assert "plugin_of_somebody" not in sys.modules
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    importlib.import_module("plugin_of_somebody")
    monkeypatch.delitem(sys.modules, "plugin_of_somebody")
    assert sculpt.load(path).model[1].weight.shape == (5, 192)
