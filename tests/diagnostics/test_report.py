"""The report of a network: its figures are those of the single diagnostics, and plain JSON."""

import json
import math

import golden
import pytest
import torch
from torch import nn

from sculpt.diagnostics.report import diagnose
from sculpt.errors import InputError
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import Masks, apply_masks, dense_masks


def pruned_mlp() -> tuple[nn.Module, Masks]:
    """Build 4-3-2 whose hidden unit 0 nobody reads and whose unit 1 has no inputs."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    initialize(model, "ldi", seed=0)
    masks = dense_masks(model)
    masks["0.weight"][1] = False
    masks["2.weight"][:, 0] = False
    masks["2.bias"][:] = False
    apply_masks(model, masks)
    return model, masks


def test_by_hand():
    model, masks = pruned_mlp()
    model[0].bias.data.zero_()
    report = diagnose(model, masks, torch.zeros(3, 4))
    first, second = (model[index].weight.detach().double() for index in (0, 2))
    values = torch.linalg.svdvals(second @ first)  # tanh has slope 1 at 0
    assert report == {
        "layers": [
            {
                "name": "0.weight",
                "shape": [3, 4],
                "kept": 8,
                "density": pytest.approx(2 / 3),
                "kept_macs": 8,
                "effective_channels": 1,
                "orthogonality": pytest.approx(1, abs=1e-5),  # the row without weights
                "orthogonality_bound": 1,
            },
            {
                "name": "2.weight",
                "shape": [2, 3],
                "kept": 4,
                "density": pytest.approx(2 / 3),
                "kept_macs": 4,
                "effective_channels": 2,
                "orthogonality": pytest.approx(
                    float(torch.linalg.matrix_norm(second @ second.T - torch.eye(2))), rel=1e-5
                ),
                "orthogonality_bound": 0,
            },
        ],
        "jacobian": {
            "mean": pytest.approx(float(values.mean())),
            "std": pytest.approx(float(values.std(correction=0))),
            "min": 0,
            "max": pytest.approx(float(values.max())),
            "condition": None,  # both outputs read the same one unit
            "images": 3,
        },
        "effective": {
            "nodes": 3,
            "parameters": 4 + 2,
            "log10_paths": pytest.approx(math.log10(4 * 2)),
        },
        "left_out": [],
        "orthogonality_score": pytest.approx(
            sum(layer["orthogonality"] for layer in report["layers"]) / 2
        ),
        "kept_parameters": 8 + 3 + 4,
        "dense_macs": 12 + 6,
        "kept_macs": 12,
        "disconnected": False,
        "collapsed_layers": [],
    }


def test_a_dense_network():
    model = resnet(3, 10)
    initialize(model, "ldi", seed=0)
    report = diagnose(model, None, torch.randn(2, 3, 32, 32))
    assert report["kept_parameters"] == golden.RESNET20_PAPER
    assert report["dense_macs"] == report["kept_macs"] == golden.RESNET20_MACS
    assert {layer["density"] for layer in report["layers"]} == {1}
    assert next(layer["name"] for layer in report["layers"]) == "stem.conv.weight"
    assert not report["disconnected"]
    assert report["jacobian"]["images"] == 2


def test_a_collapsed_network_is_plain_json_too():
    model, masks = pruned_mlp()
    masks["2.weight"][:] = False
    apply_masks(model, masks)
    report = diagnose(model, masks, torch.randn(2, 4))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["disconnected"]
    assert report["collapsed_layers"] == ["2.weight"]
    assert report["effective"] == {"nodes": 0, "parameters": 0, "log10_paths": None}
    assert report["jacobian"]["max"] == 0
    assert report["jacobian"]["condition"] is None


def test_the_model_and_masks_are_only_read():
    model, masks = pruned_mlp()
    model.train()
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    kept = {name: mask.clone() for name, mask in masks.items()}
    diagnose(model, masks, torch.randn(2, 4))
    assert model.training
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(mask, kept[name]) for name, mask in masks.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks.pop("0.bias"), r"only one of the two: 0\.bias"),
        (lambda masks: masks.update(other=masks["0.bias"]), "only one of the two: other"),
        (lambda masks: masks.update({"0.bias": torch.ones(3)}), r"must be bool of shape \(3,\)"),
        (
            lambda masks: masks.update({"0.bias": torch.ones(2).bool()}),
            r"torch.bool of shape \(2,\)",
        ),
        (
            lambda masks: masks.update({"2.weight": torch.zeros(2, 3).bool()}),
            r"some of 2\.weight are not; first call sculpt\.apply_masks",
        ),
    ],
    ids=["missing", "unknown", "type", "shape", "not applied"],
)
def test_masks_that_do_not_fit(change, message):
    model, masks = pruned_mlp()
    change(masks)
    with pytest.raises(InputError, match=message):
        diagnose(model, masks, torch.randn(2, 4))


def test_a_network_without_weights():
    with pytest.raises(InputError, match="ReLU has none"):
        diagnose(nn.ReLU(), None, torch.randn(2, 4))
