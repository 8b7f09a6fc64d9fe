"""Magnitudes of a checkpoint, and checkpoints that do not fit."""

from pathlib import Path

import pytest
import torch
from networks import count, normal
from safetensors.torch import save_file
from torch import Tensor, nn

from sculpt.bundle import write_bundle
from sculpt.errors import InputError
from sculpt.pruning.criteria.magnitude import magnitude
from sculpt.pruning.masks import apply_masks, dense_masks, keep_highest
from sculpt.pruning.task import PruningTask


def network(seed: int = 0, width: int = 5) -> nn.Module:
    layers = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 3)]
    return normal(nn.Sequential(*layers), std=1, seed=seed)


def score(model: nn.Module, checkpoint: Path) -> dict[str, Tensor]:
    return magnitude(model, PruningTask(model, 10), checkpoint=str(checkpoint))


def assert_magnitudes_of(scores: dict[str, Tensor], trained: nn.Module) -> None:
    assert list(scores) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for name, tensor in scores.items():
        assert torch.equal(tensor, trained.get_parameter(name).detach().abs()), name
        assert not tensor.requires_grad


def test_a_network_that_sculpt_has_written(tmp_path):
    trained = network(1)
    masks = keep_highest(magnitude(trained, PruningTask(trained, 20)), 20)
    apply_masks(trained, masks)
    write_bundle(tmp_path / "winner.safetensors", trained, masks, {})
    scores = score(network(), tmp_path / "winner.safetensors")
    assert_magnitudes_of(scores, trained)
    assert count(scores) == 20


def test_scores_have_the_dtype_of_the_network(tmp_path):
    torch.save(network(1).double().state_dict(), tmp_path / "trained.pt")
    scores = score(network(), tmp_path / "trained.pt")
    assert {tensor.dtype for tensor in scores.values()} == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_checkpoints_of_every_kind_whatever_the_default_device(tmp_path, device):
    """Parameters without a mask are read, too."""
    trained, model = network(1), network()
    masks = {"0.weight": torch.ones(5, 1, 3, 3, dtype=torch.bool)}
    write_bundle(tmp_path / "part.safetensors", trained, masks, {})
    save_file(trained.state_dict(), tmp_path / "plain.safetensors")
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    with torch.device(device):
        found = [score(model, path) for path in sorted(tmp_path.iterdir())]
    assert len(found) == 3
    for scores in found:
        assert_magnitudes_of(scores, trained)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_another_networks_checkpoint_is_refused(tmp_path, suffix):
    path = tmp_path / f"wide.{suffix}"
    state = network(width=6).state_dict()
    torch.save(state, path) if suffix == "pt" else save_file(state, path)
    message = (
        r"must hold every conv and linear parameter .*wide.* has shape \(6, 1, 3, 3\) for "
        r"0\.weight of shape \(5, 1, 3, 3\); give the checkpoint of a network with the same"
    )
    with pytest.raises(InputError, match=message):
        score(network(), path)


def test_a_missing_tensor_is_refused(tmp_path):
    state = network().state_dict()
    del state["0.bias"], state["2.weight"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(InputError, match=r"has no such tensor for 0\.bias of shape \(5,\)"):
        score(network(), tmp_path / "part.pt")


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "."])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="must be a readable safetensors file or a saved state"):
        score(network(), tmp_path / name)


@pytest.mark.parametrize("name", ["broken.pt", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x80\x02X\x00\x00"])
def test_a_file_of_something_else_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"must be a readable .*{name} is not"):
        score(network(), tmp_path / name)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], network().state_dict()["0.bias"]])
def test_something_else_that_torch_has_saved_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"must map parameter names to tensors.*other\.pt"):
        score(network(), tmp_path / "other.pt")


def test_a_damaged_file_of_sculpts_is_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    write_bundle(path, network(), dense_masks(network()), {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"must be a readable .*bad\.safetensors is not"):
        score(network(), path)
