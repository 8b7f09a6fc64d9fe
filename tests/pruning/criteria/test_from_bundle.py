"""A trained network's mask, taken as it is, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import sparse_resnet
from networks import appearance, count, equal
from safetensors.torch import save_file
from torch import Tensor, nn

import sculpt
from sculpt.bundle import NETWORK_FILE, write_bundle
from sculpt.errors import BudgetError, InputError
from sculpt.models.resnet import resnet
from sculpt.pruning.criteria.from_bundle import from_bundle
from sculpt.pruning.mask_rule import MaskRule
from sculpt.pruning.masks import apply_masks, count_kept
from sculpt.pruning.task import PruningTask
from sculpt.registry import options_schema

MASKS = sparse_resnet()[1]
KEPT = count(MASKS)


@pytest.fixture
def winner(tmp_path):
    """Return a folder as of an export."""
    model, masks = sparse_resnet()
    (tmp_path / "winner").mkdir()
    write_bundle(tmp_path / "winner" / NETWORK_FILE, model, masks, {})
    return tmp_path / "winner"


def other(channels: int = 1, classes: int = 10, **options: Any) -> nn.Module:
    return resnet(channels, classes, stem_width=3, blocks=1, **options)


def take(model: nn.Module, path: Path, kept: int = KEPT, **rule: Any) -> dict[str, Tensor]:
    """Score with the mask of a bundle; return it, as a mask."""
    task = PruningTask(model, kept, input_shape=(1, 8, 8), rule=MaskRule(**rule))
    scores = from_bundle(model, task, bundle=str(path))
    for name, score in scores.items():
        assert score.dtype == model.get_parameter(name).dtype
        assert set(score.unique().tolist()) <= {0.0, 1.0}
    return {name: score.bool() for name, score in scores.items()}


def test_exactly_the_mask_scores_from_a_folder_or_a_file(winner):
    model = other().double()
    before = appearance(model)
    for path in (winner, winner / NETWORK_FILE):
        assert equal(take(model, path), MASKS)
    assert appearance(model) == before


@pytest.mark.parametrize("counting", ["paper", "total"])
@pytest.mark.parametrize("missing", [12, -7])
def test_another_budget_is_refused_with_the_one_that_works(winner, counting, missing):
    right = count_kept(other(), MASKS, counting)
    message = (
        rf"keeps {KEPT} weights and biases of this network, and the budget leaves "
        rf"{KEPT - missing}; set the budget to {count_kept(other(), MASKS, 'paper')}, "
        rf"or {count_kept(other(), MASKS, 'total')} under the counting rule total"
    )
    options: Any = {"criterion": "from_bundle", "bundle": str(winner), "counting": counting}
    with pytest.raises(BudgetError, match=message):
        sculpt.prune(other(), right - missing, **options)
    assert equal(sculpt.prune(other(), right, **options), MASKS)


@pytest.mark.parametrize(
    ("shape", "layer"), [({"classes": 7}, "classifier"), ({"channels": 3}, "stem.conv")]
)
def test_a_layer_of_another_shape_is_kept_whole(winner, shape, layer):
    model = other(**shape)
    expected = dict(MASKS)
    for name in (f"{layer}.weight", f"{layer}.bias"):  # the stem's bias would fit by itself
        expected[name] = torch.ones(model.get_parameter(name).shape, dtype=torch.bool)
    kept = count(expected)
    assert equal(take(model, winner, kept), expected)
    with pytest.raises(BudgetError, match=f"set the budget to {kept},"):
        take(model, winner)


def test_what_has_no_mask_is_kept_whole(tmp_path):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    masks = {"0.weight": torch.arange(20).view(4, 5) % 3 == 0}
    apply_masks(model, {n: masks.get(n, p.bool()) for n, p in model.named_parameters()})
    write_bundle(tmp_path / "part.safetensors", model, masks, {})
    kept = count(masks) + 4 + 15
    found = take(model, tmp_path / "part.safetensors", kept)
    assert torch.equal(found.pop("0.weight"), masks["0.weight"])
    assert all(mask.all() for mask in found.values())
    # Without batch norm both counting rules are one.
    with pytest.raises(BudgetError, match=rf"the budget leaves 8; set the budget to {kept}$"):
        take(model, tmp_path / "part.safetensors", 8)


@pytest.mark.parametrize(
    ("model", "different"),
    [
        (resnet(1, 10, stem_width=3, blocks=2), r"stages\.0\.1\.first\.conv\.weight is only in th"),
        (other(conv_bias=False), r"stem\.conv\.bias is only in the trained one"),
    ],
    ids=["deeper", "without biases"],
)
def test_other_layers_are_refused(winner, model, different):
    with pytest.raises(InputError, match=rf"the same conv and linear layers .*{different}.*winner"):
        take(model, winner)


def test_a_network_of_which_no_layer_fits_is_refused(winner):
    message = (
        r"winner has none of the same name and shape: for stem\.conv\.weight of shape "
        r"\(4, 1, 3, 3\) it has \(3, 1, 3, 3\); give that of a network with the same options"
    )
    with pytest.raises(InputError, match=message):
        take(resnet(1, 10, stem_width=4, blocks=1), winner)
    with pytest.raises(InputError, match=r"for weight of shape \(2, 2\) it has no such tensor"):
        take(nn.Linear(2, 2), winner)


def test_a_file_without_a_mask_is_refused(tmp_path):
    for name in ("missing", "missing.safetensors", "."):
        with pytest.raises(InputError, match="must be a readable safetensors file, but is not"):
            take(other(), tmp_path / name)
    save_file(other().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match="must be a network written by sculpt"):
        take(other(), tmp_path / "plain.safetensors")


@pytest.mark.parametrize("rule", [{"scope": "layer"}, {"granularity": "kernel"}], ids=str)
def test_a_rule_that_makes_another_mask_is_refused(winner, rule):
    """The random mask of 30 % is uneven, and has broken kernels."""
    with pytest.raises(InputError, match=rf"with .*{next(iter(rule.values()))}.*leave these"):
        take(other(), winner, **rule)


def test_weights_on_no_path_are_not_replaced(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False), nn.Linear(4, 3, bias=False))
    masks = {"1.weight": torch.zeros(4, 64).bool(), "2.weight": torch.zeros(3, 4).bool()}
    masks["1.weight"][:2, 5] = masks["2.weight"][:, 1] = True  # of unit 0 nothing leads on
    apply_masks(model, masks)
    write_bundle(tmp_path / "dead.safetensors", model, masks, {})
    assert equal(take(model, tmp_path / "dead.safetensors", 5), masks)
    with pytest.raises(InputError, match="effective true; leave these out"):
        take(model, tmp_path / "dead.safetensors", 5, effective=True)
    with pytest.raises(InputError, match="granularity channel"):
        take(model, tmp_path / "dead.safetensors", 5, granularity="channel")


def test_a_rule_that_makes_the_same_mask_is_not(winner, tmp_path):
    assert equal(take(other(), winner, mac_exponent=0.5), MASKS)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False))
    masks = {"0.weight": torch.ones(4, 2, 3, 3, dtype=torch.bool)}
    masks["0.weight"][1:3, 0] = False
    apply_masks(model, masks)
    write_bundle(tmp_path / "whole.safetensors", model, masks, {})
    assert equal(take(model, tmp_path / "whole.safetensors", 54, granularity="kernel"), masks)


def test_a_study_must_name_the_bundle():
    schema = options_schema(from_bundle)
    assert schema.model_validate({"bundle": "winner"}).model_dump() == {"bundle": "winner"}
    with pytest.raises(ValueError, match="Field required"):
        schema.model_validate({})
