"""Calls without weights that hand channels on: which, and where each channel comes from.

What only moves values (a view, a concatenation, a channel shuffle) is not looked up in a list of
operations, but run on numbers: the number of a value tells where it was.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from sculpt.graph.channels import Numbers
from sculpt.graph.trace import Shape, Size, plain_type

POINTWISE: set[Any] = {
    nn.Identity,
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus),
    *(nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Threshold),
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh),
    *(F.sigmoid, F.logsigmoid, F.hardtanh, F.hardswish, F.hardsigmoid, F.softplus, F.softsign),
    *(torch.relu, torch.tanh, torch.sigmoid, torch.exp, torch.abs, torch.sqrt, torch.square),
    *("relu", "tanh", "sigmoid", "exp", "abs", "sqrt", "square", "clamp"),
    *(torch.clamp, torch.neg, operator.neg, operator.pow, torch.pow, "pow"),
}
"""Modules, functions and methods that make another number of each number."""

ADDITIONS: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_"}
SUMS: set[Any] = ADDITIONS | {operator.sub, operator.isub, torch.sub, "sub", torch.rsub}
PRODUCTS: set[Any] = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
QUOTIENTS: set[Any] = {operator.truediv, torch.div, "div", torch.maximum, torch.minimum}
"""Functions and methods of two tensors, or of a tensor and a number."""

BY_CHANNEL: set[Any] = {
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.LPPool1d, nn.LPPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad2d, nn.ReflectionPad2d),
    *(nn.ReplicationPad2d,),
    *(torch.ops.aten.upsample_nearest2d.vec, torch.ops.aten.upsample_bilinear2d.vec),
}
"""Modules and functions that compute each channel, the first dimension of an image, alone."""

MOVING: set[Any] = {
    *(nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.permute, torch.transpose),
    *(torch.swapaxes, torch.movedim, torch.squeeze, torch.unsqueeze, torch.cat, torch.concat),
    *(torch.stack, torch.chunk, torch.split, torch.unbind, operator.getitem, torch.unflatten),
    *("flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze"),
    *("chunk", "split", "unbind", "swapaxes", "movedim", "unflatten", torch.narrow, "narrow"),
    *(torch.select, "select", torch.clone, "clone", torch.ops.aten.slice.Tensor),
}
"""Modules, functions and methods that move values, and leave them as they are."""

MEANS: set[Any] = {torch.mean, "mean", torch.amax, "amax", torch.sum, "sum"}
"""Functions and methods over some dimensions, which stay or go."""

KNOWN = POINTWISE | SUMS | PRODUCTS | QUOTIENTS | BY_CHANNEL | MOVING | MEANS
"""All that is understood."""


@dataclass(frozen=True, eq=False)
class Carrying:
    """Where the channels of a call's result come from."""

    sources: tuple[fx.Node, ...]
    carried: tuple[Numbers, ...]
    """(channels,) for each source: the channel of it that each channel is, or -1 for none."""
    axis: int
    """Dimension of the result that holds the channels, counted from the last, -1."""
    product: bool = False
    """Whether the sources are multiplied."""
    selects: bool = False
    """Whether it is some channels of one source, whole, in an order of its own."""
    flattens: bool = False
    """Whether it is all values of one source in one row, in PyTorch's order."""
    any_width: bool = True
    """Whether the call does the same with fewer channels."""


def first_axis(size: Size) -> int:
    """Return the dimension after that of the batch, counted from the last."""
    return 1 - len(size)


def channels_first(size: Size, axis: int) -> Shape:
    """Return the shape for one image of a result, its channels first."""
    rest = [length for place, length in enumerate(size) if place not in (0, axis % len(size))]
    return (size[axis], *rest)


def run_call(node: fx.Node, module: nn.Module | None, values: Mapping[fx.Node, Any]) -> Any:
    """Run a call of a module, function or method on other values."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    if module is not None:
        return module(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


class ChannelReader:
    """Finds for the calls of a graph, in order of execution, where their channels come from.

    The graph must have the shapes of `trace`. `axes` are to be set by the caller for every result
    that has channels: the dimension that holds them, counted from the last.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """Start with the modules of the network, by name."""
        self._modules = modules
        self.axes: dict[fx.Node, int] = {}
        self._numbers: dict[fx.Node, Any] = {}
        self._hiding: set[fx.Node] = set()
        """Results that hide their channels, whatever axis the caller gives them."""
        self._starts: list[tuple[int, fx.Node]] = []
        self._next = 0
        """The first number that is free."""

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def read(self, node: fx.Node) -> Carrying | None:
        """Find where the channels of a call's result come from; None if that is not known."""
        module = self._module(node)
        what = node.target if module is None else plain_type(module)
        if what in MOVING:
            return self._moved(node, module)
        size, sources = node.meta["size"], node.all_input_nodes
        if size is None or not sources or any(s not in self.axes for s in tensors_of(node)):
            return None
        if what in POINTWISE or what in SUMS | PRODUCTS | QUOTIENTS:
            if len(sources) == 1:
                return self._alone(node) if sources[0].meta["size"] == size else None
            if what in POINTWISE or len(sources) > 2:
                return None
            return self._together(node, what in PRODUCTS)
        of_images = len(tensors_of(node)) == 1 and self._of_first_axis(sources[0])
        if what in BY_CHANNEL:
            return self._alone(node) if of_images and len(size) > 2 else None
        if what in MEANS and of_images and len(sources) == 1:
            over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            dims = (over,) if isinstance(over, int) else over
            count = len(sources[0].meta["size"])
            if isinstance(dims, tuple | list) and all(
                isinstance(dim, int) and dim % count > 1 for dim in dims
            ):
                return self._alone(node) if dims and len(size) > 1 else None
        return None

    def width(self, node: fx.Node) -> int:
        """Return the channels of a result; 0 if it has none."""
        return node.meta["size"][self.axes[node]] if node in self.axes else 0

    def likely_axis(self, node: fx.Node) -> int:
        """Guess which dimension holds the channels of a result that nothing tells of."""
        size = node.meta["size"]
        if node.op == "get_attr":
            return int(np.argmax(size)) - len(size)
        if len(size) > 2 and any(isinstance(self._module(user), nn.Linear) for user in node.users):
            return -1
        sources = (source for source in node.all_input_nodes if source in self.axes)
        like = next((source for source in sources if source.meta["size"] == size), None)
        return self.axes[like] if like else first_axis(size)

    def reads_size(self, node: fx.Node) -> bool:
        """Whether a node takes no value of a result, and no number of its channels."""
        sources, given = node.all_input_nodes, (*node.args[1:], *node.kwargs.values())
        if len(sources) != 1 or node.meta["size"] is not None:
            return False
        (source,) = sources
        if source not in self.axes:
            return False
        count = len(source.meta["size"])
        axis = self.axes[source] % count
        if (node.op, node.target) == ("call_method", "dim"):
            return True
        if node.target is getattr and given in (("dtype",), ("device",)):
            return True
        if (node.op, node.target) == ("call_method", "size") and len(given) == 1:
            return isinstance(given[0], int) and given[0] % count != axis
        is_shape = (node.op, node.target) == ("call_method", "size") and not given
        if is_shape or (node.target is getattr and given == ("shape",)):
            # The others take parts of it.
            return all(
                user.target is operator.getitem
                and isinstance(part := user.args[1], int | slice)
                and axis not in np.atleast_1d(np.arange(count)[part])
                for user in node.users
            )
        return False

    def _of_first_axis(self, node: fx.Node) -> bool:
        return self.axes[node] == first_axis(node.meta["size"])

    def _alone(self, node: fx.Node) -> Carrying | None:
        """Read a call that keeps the channels of one source where they are, first or not."""
        (source,) = tensors_of(node)
        size, width = node.meta["size"], self.width(source)
        axis = first_axis(size) if self._of_first_axis(source) else self.axes[source]
        if size[axis] != width:
            return None
        return Carrying((source,), (np.arange(width),), axis)

    def _together(self, node: fx.Node, product: bool) -> Carrying | None:
        """Read a call of two tensors, of one shape or broadcast."""
        sources, size = tuple(node.all_input_nodes), node.meta["size"]
        if len(tensors_of(node)) != len(sources):
            return None
        axis = next(self.axes[s] for s in sources if len(s.meta["size"]) == len(size))
        carried = []
        for source in sources:
            own = source.meta["size"]
            width = own[axis] if len(own) >= -axis else 1
            if self.axes[source] != axis or width not in (1, size[axis]):
                return None
            carried.append(np.arange(size[axis]) if width > 1 else np.zeros(size[axis], np.int64))
        return Carrying(sources, tuple(carried), axis, product)

    def _moved(self, node: fx.Node, module: nn.Module | None) -> Carrying | None:
        """Read a call that moves values, together with those before it that hid the channels."""
        indices: list[fx.Node] = []
        fx.node.map_arg(node.args[1:], indices.append)
        if node.target is operator.getitem and any(map(_is_tensor, indices)):
            return None  # what an index says is no channel
        values: dict[fx.Node, Any] = {}
        for source in node.all_input_nodes:
            if source in self.axes or source in self._numbers:
                values[source] = self._numbered(source)
            else:
                values[source] = source.meta["value"]
                parts = tree_leaves(values[source])
                if _is_tensor(source) or any(isinstance(part, Tensor) for part in parts):
                    return None
        found = run_call(node, module, values)
        read = self._read_numbers(node, found) if isinstance(found, Tensor) else None
        if read is None:
            self._numbers[node] = found
            self._hiding.add(node)
            return None
        sources, carried, axis = read
        selects = flattens = False
        if len(sources) == 1:
            whole = self._numbers[sources[0]]
            own = self.axes[sources[0]]
            flattens = found.dim() == 2 and torch.equal(found, whole.flatten(1))
            if len(whole.shape) == found.dim() and own == axis:
                taken = torch.from_numpy(carried[0])
                selects = torch.equal(found, whole.index_select(axis, taken))
        shown = all(source in self.axes for source in values if _is_tensor(source))
        any_width = (shown and not self._hiding & values.keys()) and all(
            self._does_the_same(node, module, values, found, axis, take)
            for take in (lambda width: range(0, width, 2), lambda width: range(1))
        )
        return Carrying(sources, carried, axis, False, selects, flattens, any_width)

    def _numbered(self, node: fx.Node) -> Any:
        """Number the values of a result that has channels; of others their origins are known."""
        if node not in self._numbers:
            start, size = self._next, node.meta["size"]
            self._next += torch.Size(size).numel()
            self._starts.append((start, node))
            self._numbers[node] = torch.arange(start, self._next).view(size)
        return self._numbers[node]

    def _read_numbers(
        self, node: fx.Node, found: Tensor
    ) -> tuple[tuple[fx.Node, ...], tuple[Numbers, ...], int] | None:
        """Find the sources of values, their channels and their axis; None if they have none."""
        if found.dim() < 2 or not found.numel():
            return None
        starts = torch.tensor([start for start, _ in self._starts])
        of = torch.searchsorted(starts, found.contiguous(), right=True) - 1
        channels, images = torch.empty_like(found), torch.empty_like(found)
        used = of.unique().tolist()
        for number in used:
            start, source = self._starts[number]
            size, axis = source.meta["size"], self.axes[source]
            here, inner = of == number, torch.Size(size[axis:][1:]).numel()
            channels[here] = (found[here] - start) // inner % size[axis]
            images[here] = (found[here] - start) // torch.Size(size[1:]).numel()
        order = torch.arange(len(found)).view(-1, *[1] * (found.dim() - 1))
        keys = channels + of * (1 + int(channels.max()))
        varying = [d for d in range(found.dim()) if bool((keys.amax(d) != keys.amin(d)).any())]
        if not torch.equal(images, order.expand_as(images)) or len(varying) > 1:
            return None
        axis = varying[0] - found.dim() if varying else self._axis_of_one(used, found)
        first = [0] * found.dim()
        line: list[Any] = list(first)
        line[axis] = slice(None)
        own, at = channels[tuple(line)].numpy(), of[tuple(line)].numpy()
        carried = tuple(np.where(at == number, own, -1) for number in used)
        return tuple(self._starts[number][1] for number in used), carried, axis

    def _axis_of_one(self, used: list[int], found: Tensor) -> int:
        """Choose the axis of one channel, of which no value tells another."""
        axis = self.axes[self._starts[used[0]][1]]
        fits = len(self._starts[used[0]][1].meta["size"]) == found.dim() and found.shape[axis] == 1
        return axis if fits else 1 - found.dim()

    def _does_the_same(
        self,
        node: fx.Node,
        module: nn.Module | None,
        values: Mapping[fx.Node, Any],
        found: Tensor,
        axis: int,
        take: Any,
    ) -> bool:
        """Whether a call moves values as before if only some channels of each source are there."""
        fewer = dict(values)
        there = torch.zeros(self._next, dtype=torch.bool)
        for source in tensors_of(node):
            own = self.axes[source]
            taken = torch.tensor(list(take(self.width(source))))
            fewer[source] = values[source].index_select(own, taken)
            there[fewer[source]] = True
        # A channel is there with all its values, or with none.
        kept = there[found].movedim(axis, 0).flatten(1).all(1)
        try:
            again = run_call(node, module, fewer)
        except (RuntimeError, IndexError, ValueError):
            return False
        expected = found.index_select(axis, kept.nonzero()[:, 0])
        return isinstance(again, Tensor) and torch.equal(again, expected)


def describe_call(node: fx.Node, module: nn.Module | None) -> str:
    """Name a call and what it calls."""
    if module is not None:
        return f"{node.target} ({type(module).__name__})"
    return f"{node.name} ({getattr(node.target, '__name__', node.target)})"


def tensors_of(node: fx.Node) -> list[fx.Node]:
    """List the sources of a call that are tensors."""
    return [source for source in node.all_input_nodes if _is_tensor(source)]


def _is_tensor(node: fx.Node) -> bool:
    return node.meta["size"] is not None
