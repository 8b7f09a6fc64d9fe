"""A trained network as a short list of operations, from which every exported format is made.

It is the network in evaluation: batch norms are scales and shifts, or folded into the layer before
them, and pruned weights are zeros. Values are NumPy arrays in float64, so that changes to them can
be certified; a format rounds them once, to float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from sculpt.errors import NumericsError
from sculpt.graph.carrying import describe_call
from sculpt.graph.channels import Link, Numbers
from sculpt.graph.trace import Shape

Array = NDArray[np.float64]
Pair = tuple[int, int]
"""Height and width."""
Steps = tuple[int, ...]
"""Height and width; of images with more or fewer dimensions, one number for each."""

Function = Literal["relu", "relu6", "leaky_relu", "tanh", "selu"]


@dataclass(frozen=True, eq=False)
class Input:
    """The images."""

    shape: Shape
    name: str = "images"
    axis: int | None = None
    """Dimension that holds the channels, counted from the last; None for the first of an image.
    The shape has the channels first all the same."""


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
    """(outputs, inputs of a group, ...), the outputs of one group after those of another."""
    bias: Array
    """(outputs,)."""
    biased: bool = field(default=True, kw_only=True)
    """Whether the network has such a bias, or a norm that became one; else it is zero so far."""

    @property
    def stored(self) -> Array:
        """The weight as PyTorch and ONNX store it."""
        return self.weight

    @property
    def inputs(self) -> int:
        """Channels that it reads."""
        return self.weight.shape[1]

    @property
    def blocks(self) -> Array:
        """The weight as (groups, outputs of one, inputs of one, ...)."""
        return self.weight[None]

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Put values for the inputs of a group, (outputs, inputs of a group, ...), among zeros.

        Returns:
            (outputs, inputs, ...).
        """
        return values


class Linear(Layer):
    """A linear layer."""


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """A convolution in PyTorch's layout, with zeros around the image.

    Its weight has zeros in the gaps of a dilation, but none between groups.
    """

    stride: Steps
    padding: Steps
    """Rows above and below, columns left and right."""
    groups: int = 1
    dilation: Steps = (1, 1)

    @property
    def stored(self) -> Array:
        """(out_channels, in_channels / groups, height, width): the weight without those zeros."""
        taps: Any = tuple(slice(None, None, step) for step in (1, 1, *self.dilation))
        return self.weight[taps]

    @property
    def inputs(self) -> int:
        """Channels that it reads."""
        return self.weight.shape[1] * self.groups

    @property
    def blocks(self) -> Array:
        """The weight as (groups, outputs of one, inputs of one, ...)."""
        return self.weight.reshape(self.groups, -1, *self.weight.shape[1:])

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Put values for the inputs of a group among zeros; see `Layer.spread`."""
        if self.groups == 1:
            return values
        blocks, places = values.reshape(self.groups, -1, *values.shape[1:]), np.arange(self.groups)
        rows, columns, *rest = blocks.shape[1:]
        whole = np.zeros((self.groups, rows, self.groups, columns, *rest), values.dtype)
        whole[places, :, places] = blocks
        return whole.reshape(len(values), -1, *rest)


@dataclass(frozen=True, eq=False)
class ConvTranspose(Conv):
    """A transposed convolution; only PyTorch runs it."""

    output_padding: Steps = (0, 0)

    @property
    def stored(self) -> Array:
        """(in_channels, out_channels / groups, height, width): the weight without those zeros."""
        taps: Any = tuple(slice(None, None, step) for step in (1, 1, 1, *self.dilation))
        blocks = self.blocks[taps].swapaxes(1, 2)
        return blocks.reshape(-1, *blocks.shape[2:])


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


@dataclass(frozen=True, eq=False)
class Call:
    """A call of the network itself, for which there is no operation here: only PyTorch runs it.

    It may carry channels on. If it is not known what it does with them, all of them stay, in its
    sources as in its result.
    """

    shape: Shape
    """Shape of the result for one image, channels first; (0,) if it is no tensor."""
    name: str
    axis: int
    """Dimension of its result that holds the channels, counted from the last."""
    node: fx.Node
    what: nn.Module | Tensor | None
    """The module that it calls, or the tensor that it gets."""
    inputs: tuple[int, ...]
    """Positions of what the node takes (`all_input_nodes`), sizes and other numbers included."""
    sources: tuple[int, ...] = ()
    """Positions of the results whose channels it takes."""
    carried: tuple[Numbers, ...] | None = None
    """(channels,) for each source; None if they are not known, or there is no source."""
    product: bool = False

    @property
    def whole(self) -> bool:
        """Whether all channels before and behind it have to stay."""
        return self.carried is None and bool(self.sources)


Computed = Conv | Linear | Affine | Activation | Add | Pool | Channels | Flatten
Operation = Input | Computed | Call


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

    @cached_property
    def axes(self) -> list[int]:
        """Dimension of each result that holds the channels, counted from the last."""
        found: list[int] = []
        for operation in self.operations:
            match operation:
                case Input(axis=int() as axis) | Call(axis=axis):
                    found.append(axis)
                case Linear():
                    found.append(-1)
                case Activation(source=source) | Add(source=source):
                    found.append(found[source])
                case _:
                    found.append(-len(operation.shape))
        return found

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
                    there = (weight != 0).reshape(*weight.shape[:2], -1).any(axis=2)
                    found.append(Link(width, (source,), operation.spread(there)))
                case Channels(taken=taken, source=source):
                    found.append(Link(width, (source,), carried=(taken,)))
                case Call(sources=sources, carried=own, product=product):
                    found.append(Link(width, sources, carried=own, product=product))
                case _:
                    before = self.operations[operation.source].shape[0]
                    others = (operation.other,) if isinstance(operation, Add) else ()
                    places = (operation.source, *others)
                    carried = np.arange(before).repeat(width // before)
                    found.append(Link(width, places, carried=(carried,) * len(places)))
        return found

    @property
    def left_whole(self) -> list[str]:
        """Calls whose channels all stay, because it is not known what they do with them."""
        return [
            describe_call(call.node, call.what if isinstance(call.what, nn.Module) else None)
            for call in self.operations
            if isinstance(call, Call) and call.whole and call.node.op != "output"
        ]

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
            for one in fields(operation):
                found = getattr(operation, one.name)
                if isinstance(found, np.ndarray) and found.dtype == np.float64:
                    yield f"{operation.name}.{one.name}", found


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
