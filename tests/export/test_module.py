"""`sculpt.compact`: a smaller network of PyTorch's own layers, and the same function."""

import pytest
import torch
from networks import Undecided, appearance
from test_latency import FAMILIES, IMAGES, sparse
from torch import nn

import sculpt
from sculpt.errors import ExportError, InputError
from sculpt.export.evaluation import to_module
from sculpt.export.lowering import lower
from sculpt.export.module import compact
from sculpt.pruning.masks import dense_masks


@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_it_is_smaller_and_computes_the_same(family, options):
    model, masks = sparse(family, options)
    small = compact(model, masks, IMAGES)
    with torch.no_grad():
        for batch in (IMAGES, IMAGES[:1]):
            expected = model.eval()(batch)
            found = small(batch)
            assert found.shape == expected.shape
            assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    sizes = [sum(p.numel() for p in network.parameters()) for network in (small, model)]
    assert sizes[0] < 0.8 * sizes[1]
    assert not small.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())


def test_it_can_be_exported_saved_and_moved(tmp_path):
    model, masks = sparse(*FAMILIES[0])
    small = sculpt.compact(model, masks, IMAGES)
    expected = small(IMAGES)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    again = sculpt.compact(model, masks, IMAGES)
    again.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    assert torch.equal(again(IMAGES), expected)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(small, (IMAGES,), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(program(IMAGES[:3]), expected[:3])
    torch.testing.assert_close(small.double()(IMAGES.double()).float(), expected)


def test_the_network_is_left_as_it_was():
    model, masks = sparse(*FAMILIES[1])
    model.zero_grad()
    before = appearance(model)
    for parameter in compact(model, masks, IMAGES).parameters():
        parameter.data.fill_(7.0)
    assert appearance(model) == before


def test_names_of_layers_stay_apart():
    """A network may have both `a.b` and `a_b`."""

    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.ModuleDict({"b": nn.Linear(4, 4)})
            self.a_b = nn.Linear(4, 4)

        def forward(self, images):
            return self.a_b(self.a["b"](images))

    model, images = Twins().eval(), torch.randn(3, 4)
    small = compact(model, dense_masks(model), images)
    torch.testing.assert_close(small(images), model(images))


def test_what_cannot_be_traced_is_refused():
    model = Undecided(3 * 32 * 32, 5)
    with pytest.raises(ExportError):
        compact(model, dense_masks(model), IMAGES)
    model, masks = sparse("mlp", {})
    del masks[next(iter(masks))]
    with pytest.raises(InputError):
        compact(model, masks, IMAGES)


def test_lowered_whole_it_keeps_its_channels():
    model, masks = sparse(*FAMILIES[0])
    whole = to_module(lower(model, masks, IMAGES))
    torch.testing.assert_close(whole(IMAGES), model.eval()(IMAGES), rtol=1e-4, atol=1e-5)
    small = compact(model, masks, IMAGES)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (small, whole)]
    assert sizes[0] < sizes[1]
