"""`sculpt.compact`: a smaller network of PyTorch's own layers, and the same function."""

import pytest
import torch
from networks import Undecided, appearance
from test_latency import FAMILIES, IMAGES, sparse
from torch import nn

import sculpt
from sculpt.bundle import write_bundle
from sculpt.errors import ExportError, InputError
from sculpt.export.condensing import certify, compact, condense
from sculpt.export.folder import export_network
from sculpt.export.latency import measure_latency
from sculpt.export.loading import Loaded
from sculpt.export.lowering import lower
from sculpt.export.module import to_module
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


def test_masks_that_were_not_applied_are_refused(tmp_path):
    """With them the network would be another function than the one that was trained."""
    model, masks = sparse("mlp", {"layers": 3, "units": 20})
    metadata = {"input": {"channels": 3, "height": 32, "width": 32}}
    name, mask = next((name, mask) for name, mask in masks.items() if not mask.all())
    model.get_parameter(name).data[~mask] = 0.5
    for use in (
        lambda: sculpt.compact(model, masks, IMAGES),
        lambda: sculpt.diagnose(model, masks, IMAGES),
        lambda: measure_latency(model, masks, IMAGES),
        lambda: write_bundle(tmp_path / "n.safetensors", model, masks, {}),
        lambda: export_network(Loaded(model, masks, metadata), tmp_path / "export", [], {}),
    ):
        with pytest.raises(InputError, match=rf"pruned weights .*{name}.*sculpt\.apply_masks"):
            use()
    assert list(tmp_path.iterdir()) == []
    sculpt.apply_masks(model, masks)
    sculpt.compact(model, masks, IMAGES)


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


class Grouped(nn.Module):
    """Residual blocks of grouped, depthwise and dilated convolutions, as RegNets have them."""

    def __init__(self):
        super().__init__()
        widths = [(3, 16, 1, 1), (16, 32, 4, 1), (32, 32, 32, 2), (32, 32, 8, 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=gap, groups=groups, dilation=gap, bias=False)
            for before, after, groups, gap in widths
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _, after, _, _ in widths)
        self.last = nn.Linear(32, 5)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = torch.relu(norm(conv(x)))
            x = x + y if conv.in_channels == conv.out_channels else y
        return self.last(x.mean((2, 3)))


def kernels(network):
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05, 0.01])
def test_grouped_convolutions_never_grow(density):
    torch.manual_seed(0)
    model, images = Grouped(), torch.randn(4, 3, 12, 12)
    model.train()(images)
    masks = {name: torch.rand(m.shape) < density for name, m in dense_masks(model).items()}
    sculpt.apply_masks(model, masks)
    small = compact(model, masks, images)
    torch.testing.assert_close(small(images), model.eval()(images), rtol=1e-4, atol=1e-4)
    for one, other in zip(kernels(small), kernels(model), strict=True):
        assert one.weight.numel() <= other.weight.numel()
    sizes = [sum(p.numel() for p in network.parameters()) for network in (small, model)]
    assert sizes[0] <= sizes[1]
    if density < 0.1:
        assert sizes[0] < 0.9 * sizes[1]


def test_whole_groups_go():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 1),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 9, 1, groups=3),
        nn.Flatten(),
        nn.Linear(9, 2),
    )
    masks = dense_masks(model)
    masks["4.weight"][:, 3:6] = False  # of the second group nothing is read
    masks["4.weight"][:, 8] = False  # of the third one channel is not
    sculpt.apply_masks(model, masks)
    small = compact(model, masks, torch.randn(3, 2, 3, 3))
    shapes = [(conv.groups, *conv.weight.shape[:2]) for conv in kernels(small)]
    assert shapes == [(1, 4, 2), (4, 4, 1), (2, 6, 2)]


def test_lowered_whole_it_keeps_its_channels():
    model, masks = sparse(*FAMILIES[0])
    whole = to_module(lower(model, masks, IMAGES))
    torch.testing.assert_close(whole(IMAGES), model.eval()(IMAGES), rtol=1e-4, atol=1e-5)
    small = compact(model, masks, IMAGES)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (small, whole)]
    assert sizes[0] < sizes[1]


def test_weights_between_groups_are_never_there():
    """A depthwise layer of a thousand channels is a thousand kernels, not a million."""
    model = nn.Sequential(
        nn.Conv2d(3, 1000, 1),
        nn.Conv2d(1000, 1000, 3, groups=1000),
        nn.ConvTranspose2d(1000, 500, 2, groups=250),
        nn.Conv2d(500, 2, 1),
        nn.Flatten(),
    )
    masks = dense_masks(model)
    masks["1.weight"][::4] = masks["1.bias"][::4] = False
    sculpt.apply_masks(model, masks)
    program = lower(model.eval(), masks, torch.zeros(1, 3, 5, 5), calls=True)
    shapes = [layer.weight.shape for layer in program.layers()]
    assert shapes == [(1000, 3, 1, 1), (1000, 1, 3, 3), (500, 4, 2, 2), (2, 500, 1, 1)]
    small = condense(program)
    certify(model, masks, small, torch.randn(2, 3, 5, 5))
    shapes = [layer.weight.shape for layer in small.layers()]
    assert shapes == [(750, 3, 1, 1), (750, 1, 3, 3), (500, 3, 2, 2), (2, 500, 1, 1)]
