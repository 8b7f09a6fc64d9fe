"""What torch.fx cannot trace is compacted by `torch.export`, with the same certificate."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from idioms import IDIOMS, channel_masks
from test_idioms import check, trained_like, weights
from torch import Tensor, nn

import sculpt
from sculpt.errors import ExportError
from sculpt.export.lowering import lower
from sculpt.export.program import Conv, Flatten, Pool
from sculpt.graph import trace
from sculpt.graph.trace import NotTraceableError, symbolic_trace
from sculpt.pruning.masks import dense_masks


class Branching(nn.Module):
    """Asserts its input's shape, pads odd images, and pools until they are small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(True))
        self.body = nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.norm, self.drop = nn.BatchNorm2d(24), nn.Dropout()
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(24 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1] == 3, f"three channels, not {images.shape[1]}"
        if images.shape[2] % 2 or images.shape[3] % 2:
            images = F.pad(images, (0, images.shape[3] % 2, 0, images.shape[2] % 2))
        hidden = F.relu(self.norm(self.body(self.stem(images))))
        while hidden.shape[-1] > 4:
            hidden = self.pool(hidden)
        return self.head(self.drop(hidden).view(hidden.size(0), -1))


class Windows(nn.Module):
    """Tokens of windows, as of a transformer: sizes are numbers, and channels are last."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 2, stride=2)
        self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.patches(images)
        count, channels, rows, columns = hidden.shape
        if rows % 2 == 0 and columns % 2 == 0:
            hidden = hidden.view(count, channels, rows * columns)
        tokens = hidden.transpose(1, 2).reshape(count, rows, columns, channels)
        tokens = tokens + self.two(F.relu(self.one(tokens)))
        return self.head(self.norm(tokens).mean(dim=(1, 2)))


class Rows(nn.Module):
    """A loop over the rows of an image, which fills a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 20, 3, padding=1)
        self.head = nn.Linear(20, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.after(torch.relu(self.conv(images))))
        means = torch.zeros(*hidden.shape[:3], dtype=hidden.dtype, device=hidden.device)
        for row in range(hidden.shape[2]):
            means[:, :, row] = hidden[:, :, row].mean(-1)
        return self.head(means.mean(2))


class Options(nn.Module):
    """Arguments by name and in lists, tensors told from others, a dictionary returned."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)])
        self.head, self.scale = nn.Linear(8, 10), nn.Parameter(torch.ones(8, 1, 1))

    def block(self, *inputs: Tensor, **options: int) -> Tensor:
        assert all(isinstance(one, Tensor) for one in inputs), "only tensors"
        return F.leaky_relu(self.blocks[options["number"]](*inputs), 0.1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = images
        for number in range(min(len(self.blocks), int(images.shape[-1]) // 3)):
            hidden = self.block(hidden, number=number)
        hidden = self.scale * hidden
        return {"logits": self.head(hidden.mean((2, 3))), "hidden": hidden}


class Constants(nn.Module):
    """Tensors that are no buffers, in modules of its own and made on the way."""

    class Block(nn.Module):
        def __init__(self, before: int) -> None:
            super().__init__()
            self.layer, self.plain = nn.Linear(before, 12), torch.linspace(1, 2, 12)
            self.register_buffer("shift", torch.linspace(0, 1, 12), persistent=False)

        def forward(self, rows: Tensor) -> Tensor:
            assert rows.dim() == 2
            bare = torch.tensor([1.0, 2.0, 3.0] * 4)
            return torch.relu(self.layer(rows)) * self.plain * bare + self.shift

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([self.Block(20), self.Block(12)])
        self.head = nn.Linear(12, 10)

    def forward(self, rows: Tensor) -> Tensor:
        for block in self.blocks:
            rows = block(rows)
        return self.head(rows)


class Unlike(nn.Module):
    """Looks at its values: another function for other images."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1)) if images.sum() > 0 else images.flatten(1)[:, :10]


class OfBatch(Unlike):
    """Does with some numbers of images what it does not with others."""

    def __init__(self, asks: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.asks = asks

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.head(images.flatten(1))
        return hidden * 2 if self.asks(images) else hidden


class Counting(Unlike):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1] == 3
        self.calls.add_(1)
        return self.head(images.flatten(1)) * self.calls


NETWORKS = {
    Branching: ((3, 15, 16), 0.6, {"pad.default"}),
    Windows: ((3, 8, 8), 0.7, {"LayerNorm", "mean"}),
    Rows: (
        (3, 5, 6),
        0.8,
        {"copy.default", "select_scatter.default", "slice_scatter.default"},
    ),
    Options: ((3, 9, 9), 0.7, set()),
}
"""Shape of an image, most of the numbers that stay, and kinds of calls that are left whole."""


@pytest.mark.parametrize(
    "kind",
    [
        Options,
        *(pytest.param(k, marks=pytest.mark.slow) for k in (Branching, Windows, Rows)),
    ],
)
def test_it_is_smaller_and_computes_the_same_for_any_batch(kind):
    shape, share, whole = NETWORKS[kind]
    torch.manual_seed(0)
    model = kind()
    with pytest.raises(NotTraceableError):
        symbolic_trace(model)
    small = check(model, channel_masks(model, 0.5, 0), shape)
    assert weights(small) < share * weights(model)
    named = {label.rpartition(" ")[2] for label in small.meta["left_whole"]}
    assert named == {f"({one})" for one in whole}
    for count in (1, 7):
        images = torch.randn(count, *shape)
        expected, found = model(images), small(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_constants_come_along():
    torch.manual_seed(0)
    model = Constants()
    masks = channel_masks(model, 0.5, 0)
    rows = torch.randn(5, 20)
    small = sculpt.compact(trained_like(model, masks), masks, rows)
    torch.testing.assert_close(small(rows), model(rows), rtol=1e-4, atol=1e-5)
    assert not small.meta["left_whole"]
    assert len(small.blocks_0_layer.weight) < 12


@pytest.mark.slow
@pytest.mark.parametrize("idiom", IDIOMS)
def test_it_understands_as_much_as_torch_fx(idiom, monkeypatch):
    torch.manual_seed(0)
    build, shape, _ = IDIOMS[idiom]
    models = [build().eval(), build().eval()]
    by_fx = check(models[0], channel_masks(models[0], 0.5, 0), shape)
    monkeypatch.setattr(trace, "symbolic_trace", refuse)
    by_export = check(models[1], channel_masks(models[1], 0.5, 0), shape)
    more = {"shuffle": 1, "foreign": 2}.get(idiom)  # an index; functions in their parts
    if more is not None:
        assert len(by_export.meta["left_whole"]) == len(by_fx.meta["left_whole"]) + more
    else:
        assert by_export.meta["left_whole"] == by_fx.meta["left_whole"]
        assert weights(by_export) == weights(by_fx)


def refuse(network: nn.Module) -> None:
    raise NotTraceableError(f"{type(network).__name__} is for torch.export")


def test_every_format_has_the_operations_of_such_a_network():
    model = Branching().eval()
    program = lower(model, dense_masks(model), torch.zeros(1, 3, 16, 16))
    assert {Conv, Flatten, Pool} <= {type(operation) for operation in program.operations}


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Unlike, "data-dependent"),
        (Counting, "writes to its own tensors"),
        *[
            (partial(OfBatch, asks), "size of a batch")
            for asks in (
                lambda images: images.shape[0] == 1,
                lambda images: images.shape[0] > 1,
                lambda images: images.shape[0] > 5,
                lambda images: images.shape[0] != 6,
                lambda images: len(images) % 2,
                lambda images: bool(images.shape[0] - 1),
            )
        ],
    ],
)
def test_what_cannot_be_traced_is_refused(build, reason):
    model = build()
    with pytest.raises(ExportError, match=f"must be traceable.* is not .*{reason}"):
        sculpt.compact(model, dense_masks(model), torch.randn(3, 3, 2, 2))


@pytest.mark.slow
def test_pytorchs_compiler_is_imported_only_where_it_traces():
    code = (
        "import sys, torch, sculpt; from torch import nn; model = nn.Sequential(nn.Linear(3, 2)); "
        "masks = sculpt.prune(model, 4, criterion='magnitude'); "
        "sculpt.compact(model, masks, torch.randn(2, 3)); "
        "print([m for m in ('torch._dynamo', 'sculpt.graph.exported') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
