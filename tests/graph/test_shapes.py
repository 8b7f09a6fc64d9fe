"""Rules for shapes against PyTorch's own, on the meta device."""

import pytest
import torch
from torch.nn import functional as F

from sculpt.graph import shapes
from sculpt.graph.shapes import QuickShapes


def of(*shape):
    return torch.empty(shape, device="meta")


IMAGES = (2, 3, 9, 7)
CASES = {
    "relu": lambda: F.relu(of(*IMAGES)),
    "leaky_relu": lambda: F.leaky_relu(of(4, 5)),
    "selu": lambda: F.selu(of(*IMAGES)),
    "tanh": lambda: torch.tanh(of()),
    "gelu": lambda: F.gelu(of(2, 0)),
    "silu": lambda: F.silu(of(3)),
    "sigmoid": lambda: of(*IMAGES).sigmoid(),
    "add": lambda: of(*IMAGES) + of(3, 1, 7),
    "add, wider": lambda: of(3, 1, 7) + of(*IMAGES),
    "add, a number": lambda: of(*IMAGES) + 2.0,
    "add, scaled": lambda: torch.add(of(2, 1), of(1, 3), alpha=2),
    "mul": lambda: of(2, 1, 4) * of(3, 1),
    "add in place": lambda: of(*IMAGES).add_(of(7)),
    "mul in place": lambda: of(*IMAGES).mul_(0.5),
    "linear": lambda: F.linear(of(5, 3), of(4, 3), of(4)),
    "linear, at positions": lambda: F.linear(of(2, 5, 3), of(4, 3), of(4)),
    "linear, without bias": lambda: F.linear(of(5, 3), of(4, 3)),
    "mean": lambda: of(*IMAGES).mean((2, 3)),
    "mean, kept": lambda: of(*IMAGES).mean(-1, keepdim=True),
    "mean of all": lambda: of(*IMAGES).mean(),
    "mean of no dimension": lambda: of(*IMAGES).mean(()),
    "mean, precise": lambda: of(*IMAGES).mean(0, dtype=torch.float64),
    "pooled to one": lambda: F.adaptive_avg_pool2d(of(*IMAGES), 1),
    "pooled to some": lambda: F.adaptive_avg_pool2d(of(*IMAGES), (3, 2)),
    "batch norm": lambda: F.batch_norm(of(*IMAGES), of(3), of(3), of(3), of(3)),
    "batch norm, plain": lambda: F.batch_norm(of(4, 3), of(3), of(3)),
    "batch norm, training": lambda: F.batch_norm(of(4, 3), of(3), of(3), training=True),
    "convolution": lambda: F.conv2d(of(*IMAGES), of(6, 3, 3, 2), of(6)),
    "convolution, strided": lambda: F.conv2d(of(*IMAGES), of(6, 3, 3, 3), None, (2, 3), (1, 0)),
    "convolution, dilated": lambda: F.conv2d(of(*IMAGES), of(6, 1, 2, 2), dilation=3, groups=3),
    "convolution, same": lambda: F.conv2d(of(*IMAGES), of(6, 3, 5, 3), padding="same"),
    "convolution, one image": lambda: F.conv2d(of(3, 9, 7), of(6, 3, 3, 3)),
    "convolution, transposed": lambda: F.conv_transpose2d(of(*IMAGES), of(3, 6, 3, 3), stride=2),
    "convolution of a line": lambda: F.conv1d(of(2, 3, 9), of(6, 3, 2)),
    "average": lambda: F.avg_pool2d(of(*IMAGES), 2),
    "average, rounded up": lambda: F.avg_pool2d(of(*IMAGES), 2, ceil_mode=True),
    "average of one image": lambda: F.avg_pool2d(of(3, 9, 7), 2),
    "maximum": lambda: F.max_pool2d(of(*IMAGES), 3, 2, 1),
    "maximum, rounded up": lambda: F.max_pool2d(of(*IMAGES), 2, ceil_mode=True),
    "layer norm": lambda: F.layer_norm(of(*IMAGES), (7,)),
    "softmax": lambda: F.softmax(of(4, 5), 1),
    "precision": lambda: F.conv2d(of(*IMAGES).half(), of(6, 3, 3, 3).half()),
}


@pytest.mark.parametrize("case", CASES)
def test_shapes_are_pytorchs(case):
    with torch.no_grad():
        expected = CASES[case]()
        with QuickShapes():
            found = CASES[case]()
    assert (found.shape, found.dtype, found.device) == (
        (expected.shape, expected.dtype, expected.device)
    )


def test_every_rule_is_among_the_cases(monkeypatch):
    used = set()

    def watched(func, rule):
        def call(*args, **options):
            found = rule(*args, **options)
            if found is not None:
                used.add(func)
            return found

        return call

    rules = {func: watched(func, rule) for func, rule in shapes._RULES.items()}
    monkeypatch.setattr(shapes, "_RULES", rules)
    with torch.no_grad(), QuickShapes():
        for case in CASES.values():
            case()
    assert used == rules.keys()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: of(2, 3) + of(2, 4),
        lambda: of(2, 3).add_(of(5, 2, 3)),
        lambda: F.linear(of(5, 3), of(4, 2), of(4)),
        lambda: F.linear(of(5, 3), of(4, 3), of(5)),
        lambda: F.conv2d(of(*IMAGES), of(6, 4, 3, 3)),
        lambda: F.avg_pool2d(of(*IMAGES), 10),
        lambda: F.batch_norm(of(*IMAGES), of(4), of(4)),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with torch.no_grad(), QuickShapes(), pytest.raises(RuntimeError):
        wrong()


def test_what_lies_elsewhere_is_computed():
    with torch.no_grad(), QuickShapes():
        assert F.linear(torch.ones(2, 3), torch.ones(4, 3)).tolist() == [[3.0] * 4] * 2
