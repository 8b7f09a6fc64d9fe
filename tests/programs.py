"""Programs made by hand: any operations, of any size, with weights of any density."""

import math
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from sculpt.export.program import (
    Activation,
    Add,
    Affine,
    Channels,
    Conv,
    Flatten,
    Input,
    Linear,
    Operation,
    Pool,
    Program,
)

SIDES = st.sampled_from([1, 2, 3, 5, 7, 8, 8, 11, 16])
"""Of images, of which some can be cut into tiles."""
DENSITIES = [0.0, 1e-3, 0.05, 0.5, 1.0]
"""Of which every code of a weight is the shortest for one, if the weight is large."""


@dataclass
class Builder:
    """Appends operations to a program; weights keep the size of numbers about as it is."""

    shape: tuple[int, ...]
    seed: int = 0
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.operations.append(Input(self.shape))

    @property
    def last(self):
        return len(self.operations) - 1

    def program(self):
        return Program(tuple(self.operations))

    def add(self, kind, shape, *values, source=None):
        """Append an operation of the shape; its fields come after name and source."""
        self.shape = tuple(shape)
        source = self.last if source is None else source
        name = f"{kind.__name__.lower()}{len(self.operations)}"
        self.operations.append(kind(self.shape, name, source, *values))
        return self.last

    def conv(self, width, window, density, stride=(1, 1), padding=(0, 0), source=None):
        shape = self.operations[self.last if source is None else source].shape
        weight = self.sparse((width, shape[0], *window), density)
        size = [
            (length + 2 * p - w) // s + 1
            for length, p, w, s in zip(shape[1:], padding, window, stride, strict=True)
        ]
        bias = self.rng.normal(size=width)
        return self.add(Conv, (width, *size), weight, bias, stride, padding, source=source)

    def linear(self, width, density):
        weight = self.sparse((width, *self.shape), density)
        return self.add(Linear, (width,), weight, self.rng.normal(size=width))

    def affine(self, source=None):
        shape = self.operations[self.last if source is None else source].shape
        scale, shift = self.rng.normal(size=(2, shape[0]))
        return self.add(Affine, shape, scale, shift, source=source)

    def activation(self, function):
        return self.add(Activation, self.shape, function, 0.2 * (function == "leaky_relu"))

    def plus(self, other):
        return self.add(Add, self.shape, other)

    def pool(self, function, window, stride, padding, *, ceil_mode):
        lines = zip(self.shape[1:], window, stride, padding, strict=True)
        size = [pooled(*line, ceil_mode) for line in lines]
        shape = (self.shape[0], *size)
        return self.add(Pool, shape, function, window, stride, padding, ceil_mode)

    def channels(self, taken, source=None):
        shape = self.operations[self.last if source is None else source].shape
        taken = np.array(taken, np.int64)
        return self.add(Channels, (len(taken), *shape[1:]), taken, source=source)

    def flatten(self):
        return self.add(Flatten, (math.prod(self.shape),))

    def sparse(self, shape, density):
        """Return normal weights, of which about this share is not zero, but some are -0.0."""
        kept = self.rng.random(shape) < density
        weight = self.rng.normal(size=shape) * kept
        inputs = max(1.0, density * math.prod(shape[1:]))
        return weight / np.sqrt(inputs)


def pooled(length, window, stride, padding, ceil_mode):
    """Return how many windows PyTorch takes."""
    room = length + 2 * padding - window
    count = (math.ceil if ceil_mode else math.floor)(room / stride) + 1
    # The last one must begin in the image, or in the padding before it.
    return count - (ceil_mode and (count - 1) * stride >= length + padding)


@st.composite
def programs(draw):
    """Draw a program on images or on rows of numbers."""
    density = st.sampled_from(DENSITIES)
    flat = draw(st.booleans())
    shape = (draw(st.integers(1, 40)),)
    if not flat:
        shape = (draw(st.integers(1, 4)), draw(SIDES), draw(SIDES))
    builder = Builder(shape, draw(st.integers(0, 1000)))
    for _ in range(draw(st.integers(1, 6))):
        _draw_operation(draw, builder, density)
    if not flat and draw(st.booleans()):
        builder.flatten()
    if len(builder.shape) == 1 and draw(st.booleans()):
        builder.linear(draw(st.integers(1, 10)), draw(density))
    return builder.program()


def _draw_operation(draw, builder, density):
    image = len(builder.shape) == 3
    # Convolutions and what is channel by channel may read anything of before.
    alike = [i for i, o in enumerate(builder.operations) if len(o.shape) == len(builder.shape)]
    source = draw(st.sampled_from(alike))
    shape = builder.operations[source].shape
    kinds = ["affine", "activation", "plus", "channels", "layer", *["pool"] * image]
    match draw(st.sampled_from(kinds)):
        case "affine":
            builder.affine(source)
        case "activation":
            functions = ["relu", "relu6", "leaky_relu", "tanh", "selu"]
            builder.activation(draw(st.sampled_from(functions)))
        case "plus":
            same = [i for i, o in enumerate(builder.operations) if o.shape == builder.shape]
            builder.plus(draw(st.sampled_from(same)))
        case "channels":
            whole, pads = list(range(shape[0])), st.integers(0, 2)
            padded = [-1] * draw(pads) + whole + [-1] * draw(pads)
            anyhow = draw(st.lists(st.integers(-1, shape[0] - 1), min_size=1, max_size=8))
            builder.channels(draw(st.sampled_from([padded, anyhow])), source)
        case "layer" if image:
            window = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
            # Windows may be larger than the image, but not than what it is padded to.
            least = [max(0, -(-(w - n) // 2)) for w, n in zip(window, shape[1:], strict=True)]
            padding = draw(st.tuples(*[st.integers(n, n + 2) for n in least]))
            stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
            builder.conv(draw(st.integers(1, 24)), window, draw(density), stride, padding, source)
        case "layer":
            builder.linear(draw(st.integers(1, 40)), draw(density))
        case "pool":
            _draw_pool(draw, builder)


def _draw_pool(draw, builder):
    window = draw(st.tuples(*[st.integers(1, min(4, n)) for n in builder.shape[1:]]))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = draw(st.tuples(*[st.integers(0, w // 2) for w in window]))
    function = draw(st.sampled_from(["average", "max"]))
    builder.pool(function, window, stride, padding, ceil_mode=draw(st.booleans()))


def resnet20(k, stage_densities, seed=0):
    """Return ResNet-20 of width 16 k for CIFAR-10, with identity shortcuts, at these densities.

    They are of the three stages; the first and the last layer have those of their neighbours.
    """
    builder = Builder((3, 32, 32), seed)
    one = {"window": (3, 3), "padding": (1, 1)}
    builder.conv(16 * k, density=stage_densities[0], **one)
    stream = builder.activation("relu")
    for stage, density in enumerate(stage_densities):
        width = 16 * k * 2**stage
        for block in range(3):
            wider = stage > 0 and block == 0
            stride = (2, 2) if wider else (1, 1)
            builder.conv(width, density=density, stride=stride, source=stream, **one)
            builder.activation("relu")
            branch = builder.conv(width, density=density, **one)
            if wider:
                zeros = [-1] * (width // 4)
                image = builder.operations[stream].shape
                rows = (image[0], image[1] // 2, image[2] // 2)
                half = ("max", (1, 1), (2, 2), (0, 0), False)
                builder.add(Pool, rows, *half, source=stream)
                stream = builder.channels([*zeros, *range(width // 2), *zeros])
            builder.add(Add, builder.shape, branch, source=stream)
            stream = builder.activation("relu")
    builder.pool("average", (8, 8), (8, 8), (0, 0), ceil_mode=False)
    builder.flatten()
    builder.linear(10, 0.5)
    return builder.program()
