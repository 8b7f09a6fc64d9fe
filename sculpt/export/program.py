"""A trained network as a short list of operations, from which every exported format is made.

It is the network in evaluation: batch norms are scales and shifts, or folded into the layer before
them, and pruned weights are zeros. Values are NumPy arrays in float64, so that changes to them can
be certified; a format rounds them once, to float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sculpt.errors import NumericsError
from sculpt.graph.channels import Link
from sculpt.graph.trace import Shape

Array = NDArray[np.float64]
Pair = tuple[int, int]
"""Height and width."""

Function = Literal["relu", "relu6", "leaky_relu", "tanh", "selu"]


@dataclass(frozen=True, eq=False)
class Input:
    """The images."""

    shape: Shape
    name: str = "images"


@dataclass(frozen=True, eq=False)
class _Computed:
    """An operation on the result of another."""

    shape: Shape
    name: str
    source: int
    """Position of the operation whose result it takes."""


@dataclass(frozen=True, eq=False)
class Layer(_Computed):
    """An operation with weights."""

    weight: Array
    """(outputs, inputs, ...)."""
    bias: Array
    """(outputs,)."""

    @property
    def stored(self) -> Array:
        """The weight as PyTorch and ONNX store it."""
        return self.weight


class Linear(Layer):
    """A linear layer."""


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """A convolution in PyTorch's layout, with zeros around the image.

    Its weight is whole: with zeros between groups and in the gaps of a dilation.
    """

    stride: Pair
    padding: Pair
    """Rows above and below, columns left and right."""
    groups: int = 1
    dilation: Pair = (1, 1)

    @property
    def stored(self) -> Array:
        """(out_channels, in_channels / groups, height, width): the weight without those zeros."""
        weight = self.weight[:, :, :: self.dilation[0], :: self.dilation[1]]
        rows, columns = (size // self.groups for size in weight.shape[:2])
        whole = weight.reshape(self.groups, rows, self.groups, columns, *weight.shape[2:])
        places = np.arange(self.groups)
        return whole[places, :, places].reshape(-1, *whole.shape[3:])


@dataclass(frozen=True, eq=False)
class Affine(_Computed):
    """A scale and a shift for each channel: a batch norm that could not be folded."""

    scale: Array
    """(channels,)."""
    shift: Array


@dataclass(frozen=True, eq=False)
class Activation(_Computed):
    """A function of each value."""

    function: Function
    slope: float = 0.0
    """Below zero, for `leaky_relu`."""


@dataclass(frozen=True, eq=False)
class Add(_Computed):
    """The sum of two results of one shape."""

    other: int


@dataclass(frozen=True, eq=False)
class Pool(_Computed):
    """The mean or the maximum of windows, channel by channel."""

    function: Literal["average", "max"]
    window: Pair
    stride: Pair
    padding: Pair
    """Ignored by a maximum; counted as zeros by a mean."""
    ceil_mode: bool
    """Whether a window may begin inside and end outside of the image (and its padding). The part
    outside is not counted."""


@dataclass(frozen=True, eq=False)
class Channels(_Computed):
    """Some channels, in a new order, and zeros: shortcuts that widen, and gathered channels."""

    taken: NDArray[np.int64]
    """(channels,): channel of the source, or -1 for zeros."""


@dataclass(frozen=True, eq=False)
class Flatten(_Computed):
    """All values of an image in one row, channel by channel, in PyTorch's order."""


Computed = Conv | Linear | Affine | Activation | Add | Pool | Channels | Flatten
Operation = Input | Computed


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in order of execution: first the input, last the logits."""

    operations: tuple[Operation, ...]

    @property
    def input_shape(self) -> Shape:
        """Shape of one image."""
        return self.operations[0].shape

    @property
    def classes(self) -> int:
        """Number of logits."""
        return prod(self.operations[-1].shape)

    def users(self) -> list[list[int]]:
        """Return for each operation the positions of those that take its result."""
        found: list[list[int]] = [[] for _ in self.operations]
        for position, link in enumerate(self.links):
            for source in link.sources:
                found[source].append(position)
        return found

    @cached_property
    def links(self) -> list[Link]:
        """Dependence of each operation's channels on those of its sources."""
        found: list[Link] = []
        for operation in self.operations:
            width = operation.shape[0]
            match operation:
                case Input():
                    found.append(Link(width))
                case Layer(weight=weight, source=source):
                    connections = (weight != 0).reshape(*weight.shape[:2], -1).any(axis=2)
                    found.append(Link(width, (source,), connections))
                case Channels(taken=taken, source=source):
                    found.append(Link(width, (source,), carried=taken))
                case _:
                    before = self.operations[operation.source].shape[0]
                    others = (operation.other,) if isinstance(operation, Add) else ()
                    places = (operation.source, *others)
                    carried = np.arange(before).repeat(width // before)
                    found.append(Link(width, places, carried=carried))
        return found

    def macs(self, *, dense: bool) -> int:
        """Multiply-accumulates for one image: of all weights, or of those that are not zero."""
        return sum(
            prod(layer.shape[1:])
            * (layer.stored.size if dense else int(np.count_nonzero(layer.weight)))
            for layer in self.layers()
        )

    def layers(self) -> Iterator[Layer]:
        """Iterate over the layers with weights, in order."""
        return (operation for operation in self.operations if isinstance(operation, Layer))

    def values(self) -> Iterator[tuple[str, Array]]:
        """Iterate over all arrays of values with their names: layer and field."""
        for operation in self.operations:
            for field in fields(operation):
                found = getattr(operation, field.name)
                if isinstance(found, np.ndarray) and found.dtype == np.float64:
                    yield f"{operation.name}.{field.name}", found


def as_float32(values: NDArray[np.float64], name: str) -> NDArray[np.float32]:
    """Round values to float32, as a file holds them; a pruned weight is +0.0.

    NumericsError if one is not finite, or too large.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32) + np.float32(0)
    if not np.isfinite(rounded).all():
        worst = values.flat[int(np.argmin(np.isfinite(rounded)))]
        raise NumericsError(
            f"{name}: values must be finite in float32 to be exported, but one is {worst}; "
            "train with a lower learning rate"
        )
    return np.ascontiguousarray(rounded)
