"""Networks as programs: they compute the same, whatever they are made of."""

import pytest
import torch
import torch.nn.functional as F
from networks import Undecided
from torch import Tensor, nn

from sculpt.errors import ExportError
from sculpt.export.lowering import lower
from sculpt.export.module import evaluate_program
from sculpt.export.program import Activation, Affine, Channels, Conv, Flatten, Input, Linear
from sculpt.initializers import initialize
from sculpt.models import build_network
from sculpt.pruning.masks import Masks, apply_masks, dense_masks

FAMILIES = [
    ("resnet", {"widening": 1, "blocks": 1, "stem_width": 4}, (3, 15, 13)),
    ("resnet", {"widening": 1.5, "blocks": 2, "version": "v2", "stem_width": 4}, (1, 16, 16)),
    ("resnet", {"blocks": 1, "shortcut": "projection", "conv_bias": True}, (3, 16, 16)),
    ("resnet", {"blocks": 1, "activation": "leaky_relu", "stem_stride": 2}, (3, 16, 16)),
    ("resnet", {"blocks": 1, "activation": "selu"}, (3, 16, 16)),
    ("wide_resnet", {"depth": 10, "widening": 1}, (3, 16, 16)),
    ("vgg16", {"widening": 0.1}, (3, 32, 32)),
    ("mlp", {"activation": "tanh"}, (1, 8, 8)),
    ("lenet_300_100", {}, (1, 28, 28)),
]


def trained_like(model: nn.Module, shape: tuple[int, ...], density: float = 0.3) -> Masks:
    """Give a network the look of a trained one: statistics, shifts, biases, a random mask."""
    torch.manual_seed(0)
    initialize(model, "variance_scaling", seed=0)
    masks = {
        name: torch.rand(mask.shape) < density if mask.dim() > 1 else mask
        for name, mask in dense_masks(model).items()
    }
    apply_masks(model, masks)
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        for _ in range(3):
            model(torch.randn(8, *shape))
    apply_masks(model, masks)
    return masks


def difference(model: nn.Module, masks: Masks, shape: tuple[int, ...], batch: int = 3) -> float:
    """Return how far the logits of the program are from the network's, in float64."""
    images = torch.randn(batch, *shape, dtype=torch.float64)
    program = lower(model, masks, images)
    with torch.no_grad():
        expected = model.double().eval()(images)
    found = evaluate_program(program, images)
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "options", "shape"), FAMILIES)
def test_every_family(name, options, shape):
    pixels = shape[1] * shape[2]
    model = build_network(name, channels=shape[0], classes=7, pixels=pixels, **options)
    masks = trained_like(model, shape)
    assert difference(model, masks, shape) < 1e-12


def test_what_is_pruned_is_zero_and_norms_are_folded():
    model = build_network("resnet", channels=1, classes=3, pixels=64, blocks=1, stem_width=4)
    masks = trained_like(model, (1, 8, 8))
    program = lower(model, masks, torch.zeros(1, 1, 8, 8))
    kinds = [type(operation) for operation in program.operations]
    assert Affine not in kinds
    for layer in program.layers():
        name = f"{layer.name}.weight"
        assert (layer.weight != 0).sum() <= int(masks[name].sum())
        assert not layer.weight[~masks[name].numpy()].any()
    assert program.macs(dense=False) < program.macs(dense=True)


class Everything(nn.Module):
    """Every operation that is known, and those that are spelled in several ways.

    A concatenation in the end is not known.
    """

    def __init__(self, concatenate: bool = False) -> None:
        super().__init__()
        self.concatenate = concatenate
        self.grouped = nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2), groups=3)
        self.dilated = nn.Conv2d(6, 8, 3, padding=2, dilation=2, bias=False)
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.leaky = nn.LeakyReLU(0.1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.average = nn.AvgPool2d((2, 3), stride=2, padding=1, ceil_mode=True)
        self.dropout = nn.Dropout(0.5)
        self.divide = nn.AdaptiveAvgPool2d((1, 2))
        self.shared = nn.Conv2d(8, 8, 1)
        self.relu6 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.dilated(torch.tanh(self.grouped(x))))
        y = self.pool(self.leaky(x)) + self.average(x.relu())
        y = torch.add(self.shared(y), self.relu6(self.shared(F.relu(y))))
        features = self.dropout(torch.flatten(self.divide(y), 1))
        return torch.cat([features, y.mean((2, 3))], 1) if self.concatenate else features


def test_every_operation():
    model = Everything()
    shape = (3, 16, 10)
    images = torch.randn(4, *shape)
    model.train()(images)
    assert difference(model, dense_masks(model), shape) < 1e-12
    program = lower(model, dense_masks(model), images)
    assert sum(isinstance(operation, Conv) for operation in program.operations) == 4


class Views(nn.Module):
    """Flattening by a view, chosen channels, and a shuffle of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 6, 3)
        self.last = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(F.relu(self.one(x))[:, [5, 0, 3, 1]])
        x = x.view(x.size(0), 2, 3, 2, 2).transpose(1, 2).contiguous().view(-1, 6, 2, 2)
        return self.last(x.reshape(x.shape[0], -1))


def test_what_only_moves_values_has_operations_in_every_format():
    model = Views()
    assert difference(model, dense_masks(model), (3, 6, 6)) < 1e-12
    program = lower(model, dense_masks(model), torch.zeros(1, 3, 6, 6))
    kinds = [type(operation) for operation in program.operations]
    assert kinds == [Input, Conv, Activation, Channels, Conv, Channels, Flatten, Linear]


def test_a_norm_is_folded_through_what_does_nothing():
    class Branch(nn.Module):
        def __init__(self, *, reads_twice: bool) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
            self.again, self.nothing = nn.BatchNorm2d(2), nn.Dropout2d()
            self.reads_twice = reads_twice

        def forward(self, x: Tensor) -> Tensor:
            y = self.nothing(self.conv(x))
            z = self.again(self.norm(y))
            return (z + y if self.reads_twice else z).mean((2, 3))

    for reads_twice, norms in ((False, 0), (True, 2)):
        model = Branch(reads_twice=reads_twice)
        model.train()(torch.randn(4, 1, 5, 5))
        assert difference(model, dense_masks(model), (1, 5, 5)) < 1e-12
        program = lower(model, dense_masks(model), torch.zeros(1, 1, 5, 5))
        assert sum(isinstance(operation, Affine) for operation in program.operations) == norms


def test_what_is_not_known_is_said():
    model = Everything(concatenate=True)
    with pytest.raises(ExportError, match=r"but cat is .*; export it as bundle"):
        lower(model, dense_masks(model), torch.zeros(1, 3, 16, 10))
    asks = Undecided(4, 4)
    with pytest.raises(ExportError, match=r"must be traceable .* but that of Undecided is not"):
        lower(asks, dense_masks(asks), torch.zeros(1, 4))


def test_a_norm_that_something_else_reads_beside_stays():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (self.norm(y) + y).mean((2, 3))

    model = Branch()
    model.train()(torch.randn(4, 1, 5, 5))
    assert difference(model, dense_masks(model), (1, 5, 5)) < 1e-12
    program = lower(model, dense_masks(model), torch.zeros(1, 1, 5, 5))
    assert any(isinstance(operation, Affine) for operation in program.operations)
    assert not any(isinstance(operation, Linear) for operation in program.operations)
