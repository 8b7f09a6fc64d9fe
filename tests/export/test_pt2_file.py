"""A .pt2 file is the network, at any batch size, and says nothing of where it was made."""

import zipfile
from pathlib import Path

import pytest
import torch
from networks import Undecided, appearance
from torch import nn

import sculpt
from sculpt.errors import ExportError
from sculpt.export.folder import TOLERANCE, compare
from sculpt.export.formats import Network
from sculpt.export.formats.pt2 import Pt2Format, pt2_bytes
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet


@pytest.fixture
def network():
    """A network in training mode, with statistics that are not the fresh ones."""
    model = resnet(1, 10, stem_width=3, blocks=1)
    initialize(model, "variance_scaling", seed=0)
    with torch.no_grad():
        model.train()(images(20))
    return model


def images(count, seed=1):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_any_batch_size_gives_the_logits_of_the_network(tmp_path, network):
    path = tmp_path / "network.pt2"
    path.write_bytes(pt2_bytes(network, (1, 8, 8)))
    loaded = torch.export.load(path).module()
    network.eval()
    for batch in (1, 2, 3, 17):
        torch.testing.assert_close(loaded(images(batch)), network(images(batch)))


def test_the_network_stays_as_it_is(tmp_path, network):
    network.double()
    before = appearance(network)
    (tmp_path / "n.pt2").write_bytes(pt2_bytes(network, (1, 8, 8)))
    assert appearance(network) == before
    loaded = torch.export.load(tmp_path / "n.pt2").module()
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_no_path_of_this_machine_is_in_the_file(tmp_path, network):
    (tmp_path / "n.pt2").write_bytes(pt2_bytes(network, (1, 8, 8)))
    with zipfile.ZipFile(tmp_path / "n.pt2") as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
    for module in (sculpt, torch):
        assert str(Path(module.__file__).parent).encode() not in contents


class BatchOfTwo(nn.Module):
    def forward(self, images):
        return images.flatten(1).view(2, -1)


class Shy(nn.Module):
    """Is another network while it is traced."""

    def forward(self, images):
        return images * (2.0 if torch.compiler.is_compiling() else 1.0)


@pytest.mark.parametrize("module", [BatchOfTwo(), Undecided(64, 4)])
def test_a_forward_pass_that_cannot_be_traced_is_refused(module):
    with pytest.raises(ExportError, match=f"that of {type(module).__name__} is not"):
        pt2_bytes(module, (1, 8, 8))


def test_other_logits_are_found_out(tmp_path):
    path, inputs = tmp_path / "n.pt2", images(3)
    path.write_bytes(pt2_bytes(Shy(), (1, 8, 8)))
    network = Network(Shy(), {}, {}, inputs)
    assert compare(Pt2Format, path, network, inputs, Shy()(inputs)) > TOLERANCE
    assert compare(Pt2Format, path, network, inputs, 2 * Shy()(inputs)) < TOLERANCE


def test_a_network_of_rows(tmp_path):
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    (tmp_path / "n.pt2").write_bytes(pt2_bytes(module, (5,)))
    rows = torch.randn(7, 5)
    with torch.no_grad():
        found = torch.export.load(tmp_path / "n.pt2").module()(rows)
        torch.testing.assert_close(found, module(rows))
