"""Lowering a trained network to a program: its forward pass is traced, batch norms are folded."""

import operator
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sculpt.diagnostics.layers import Layer, Masks, by_output, check_applied
from sculpt.errors import ExportError
from sculpt.export import program as ops
from sculpt.export.program import Array, Function, Pair, Program
from sculpt.graph.carrying import (
    ADDITIONS,
    Carrying,
    ChannelReader,
    channels_first,
    first_axis,
    tensors_of,
)
from sculpt.graph.copies import cast, copy_network
from sculpt.graph.trace import NotTraceableError, Shape, Size, plain_type, trace
from sculpt.models.residual_blocks import ZeroPad

FUNCTIONS: dict[Any, Function] = {
    nn.ReLU: "relu",
    F.relu: "relu",
    torch.relu: "relu",
    "relu": "relu",
    nn.ReLU6: "relu6",
    nn.Tanh: "tanh",
    torch.tanh: "tanh",
    "tanh": "tanh",
    nn.SELU: "selu",
}
OVER_IMAGE = (((2, 3),), ([2, 3],), ((-2, -1),), ([-2, -1],))
"""Arguments of a mean over the pixels of an image."""
SCALES = {operator.mul, operator.imul, torch.mul, "mul"}

Place = tuple[Shape, str, int]
"""Shape, name and source of an operation."""


def lower(
    model: nn.Module, masks: Masks, example_inputs: Tensor, *, calls: bool = False
) -> Program:
    """Lower a trained network, see `sculpt.compact`, to a program in float64.

    Args:
        model, masks: Of the network.
        example_inputs: (N, ...); only the shape counts.
        calls: Whether what has no operation of its own may stay a call, which only PyTorch runs.

    Raises:
        ExportError: the forward pass cannot be traced, or has an unknown operation.
    """
    network = masked_copy(model, masks, torch.float64)
    try:
        graph = trace(network, tuple(example_inputs.shape[1:]), otherwise=_exported_graph)
    except NotTraceableError as error:
        raise ExportError(
            "a network's forward pass must be traceable to be exported (torch.fx, "
            "or torch.export for images of one shape), but "
            f"{error}; export it as bundle, state_dict or pt2"
        ) from error
    with torch.no_grad():
        return _Lowering(network, graph, calls).program()


def _exported_graph(network: nn.Module, shape: Shape) -> fx.Graph:
    from sculpt.graph.exported import exported_graph  # imports PyTorch's compiler, for seconds

    return exported_graph(network, shape)


@dataclass(frozen=True, eq=False)
class _Lowered:
    """What becomes of a node, before it is known where."""

    chain: tuple[ops.Operation, ...]
    """Operations one after another, the first on the first input; without any, it is its input."""
    inputs: tuple[fx.Node, ...]
    reads: tuple[fx.Node, ...] = ()
    """Inputs whose channels a call takes."""


class _Lowering:
    """The operations of a traced network."""

    def __init__(self, network: nn.Module, graph: fx.Graph, calls: bool):
        self._graph, self._calls = graph, calls
        self._modules = dict(network.named_modules())
        called = (node for node in graph.nodes if node.op == "call_module")
        self._uses = Counter(id(self._modules[str(node.target)]) for node in called)
        self._network = network
        self._reader = ChannelReader(self._modules)
        self._lowered: dict[fx.Node, _Lowered] = {}

    def program(self) -> Program:
        """Lower all that the output depends on."""
        *nodes, output = self._graph.nodes
        for node in nodes:
            self._lowered[node] = self._lower(node)
        (result,) = output.args
        if not self._calls and not isinstance(result, fx.Node):
            raise ExportError("a network must return one tensor of logits for this format")
        users = Counter(output.all_input_nodes)  # of what is needed, which sizes seldom are
        for node in reversed(nodes):
            if node in users or node.op == "placeholder":
                users.update(self._lowered[node].inputs)
        operations: list[ops.Operation] = []
        places: dict[fx.Node, int] = {}
        shared: set[int] = set()  # positions of results that several nodes take
        for node in nodes:
            if node in users or node.op == "placeholder":
                self._emit(node, operations, places, shared)
                if users[node] > 1:
                    shared.add(places[node])
        is_last = isinstance(result, fx.Node) and places[result] == len(operations) - 1
        if self._calls and not (is_last and len(result.meta["size"] or ()) == 2):
            at = tuple(places[node] for node in output.all_input_nodes)
            reads = tuple(places[node] for node in tensors_of(output))
            operations.append(ops.Call((0,), output.name, -1, output, None, at, reads))
        elif not is_last:
            raise ExportError(
                "a network must return the result of its last operation for this format"
            )
        return Program(tuple(operations))

    def _emit(
        self,
        node: fx.Node,
        operations: list[ops.Operation],
        places: dict[fx.Node, int],
        shared: set[int],
    ) -> None:
        """Append a node's operations."""
        found = self._lowered[node]
        inputs = tuple(places[source] for source in found.inputs)
        place = inputs[0] if inputs else -1
        for operation in found.chain:
            match operation:
                case ops.Affine() if _folds(operations[place], place, shared):
                    operations[place] = _folded(operations[place], operation)
                    continue
                case ops.Call() if not self._calls:
                    raise ExportError(
                        "a network must consist of convolutions, linear layers, batch norms, "
                        "activations, pools, additions and flattening for this format, but "
                        f"{node.name} is {self._what(node)}; export it as bundle, state_dict or pt2"
                    )
                case ops.Call():
                    reads = tuple(places[source] for source in found.reads)
                    operations.append(replace(operation, inputs=inputs, sources=reads))
                case ops.Add():
                    operations.append(replace(operation, source=place, other=inputs[-1]))
                case ops.Input():
                    operations.append(operation)
                case _:
                    operations.append(replace(operation, source=place))
            place = len(operations) - 1
        places[node] = place

    def _what(self, node: fx.Node) -> Any:
        return self._modules[node.target] if node.op == "call_module" else node.target

    def _lower(self, node: fx.Node) -> _Lowered:
        """Find a node's operations, and the axis of its channels."""
        axes, size = self._reader.axes, node.meta["size"]
        if node.op == "placeholder" and not axes:
            axis = axes[node] = self._reader.likely_axis(node)
            shape = channels_first(size, axis)
            own = None if axis == first_axis(size) else axis
            return _Lowered((ops.Input(shape, node.name, own),), ())
        if node.op in ("placeholder", "get_attr"):
            return self._call(node)
        what, sources = self._what(node), tuple(node.all_input_nodes)
        if node.meta["same"] and sources[0] in axes:
            axes[node] = axes[sources[0]]
            return _Lowered((), sources[:1])
        found = self._known(node, what, sources)
        if found is not None:
            return found
        carrying = self._reader.read(node)
        if carrying is None:
            return self._call(node)
        source, axis = carrying.sources[0], carrying.axis
        at = (channels_first(size, axis), node.name, 0)
        natural = axis == first_axis(size) and axes[source] == first_axis(source.meta["size"])
        if carrying.flattens and natural:
            axes[node] = axis
            chain = () if size == source.meta["size"] else (ops.Flatten(*at),)
            return _Lowered(chain, (source,))
        if carrying.selects and natural:
            axes[node] = axis
            (taken,) = carrying.carried
            same = np.array_equal(taken, np.arange(self._reader.width(source)))
            return _Lowered(() if same else (ops.Channels(*at, taken),), (source,))
        return self._call(node, carrying if carrying.any_width else None)

    def _known(self, node: fx.Node, what: Any, sources: tuple[fx.Node, ...]) -> _Lowered | None:
        """Return the operations of a node that has some of its own."""
        axes, size = self._reader.axes, node.meta["size"]
        if not size or len(size) < 2 or any(source not in axes for source in sources):
            return None
        if not sources or not all(source.meta["size"] for source in sources):
            return None
        axis, of_first = axes[sources[0]], axes[sources[0]] == first_axis(sources[0].meta["size"])
        if what in ADDITIONS and _is_sum(node) and all(axes[s] == axis for s in sources):
            axes[node] = axis
            return _Lowered((ops.Add(channels_first(size, axis), node.name, 0, 0),), sources)
        if len(sources) > 1:
            return self._scaled(node, what, sources) if self._calls else None
        if isinstance(what, Layer) and (
            self._uses[id(what)] > 1 if self._calls else not _is_portable(what, size)
        ):
            return None  # as layers of two operations its weights would be there twice
        if isinstance(what, nn.Linear):
            if axis != -1:
                return None
            axes[node] = -1
            weight = what.weight.detach().numpy()
            at = (channels_first(size, -1), str(node.target), 0)
            bias, biased = _bias(what.bias, len(weight)), what.bias is not None
            return _Lowered((ops.Linear(*at, weight, bias, biased=biased),), sources)
        chain = _lowered(node, what, axis)
        pointwise = bool(chain) and all(isinstance(found, ops.Activation) for found in chain or ())
        if chain is None or not (of_first or pointwise):
            return None
        axes[node] = axis if pointwise else first_axis(size)
        return _Lowered(tuple(chain), sources)

    def _scaled(self, node: fx.Node, what: Any, sources: tuple[fx.Node, ...]) -> _Lowered | None:
        """Return a product with, or a sum of, one number for each channel that is a parameter."""
        axes, size = self._reader.axes, node.meta["size"]
        values = [source for source in sources if source.op == "get_attr"]
        if len(values) != 1 or len(sources) != 2 or what not in SCALES | ADDITIONS or node.kwargs:
            return None
        (value,), (source,) = values, [source for source in sources if source not in values]
        axis, own = axes[source], value.meta["size"]
        width = size[axis]
        fits = len(own) >= -axis and own[axis] == width and torch.Size(own).numel() == width
        if source.meta["size"] != size or axis != first_axis(size) or not fits:
            return None
        if self._tensor(value).is_complex():
            return None
        numbers = self._tensor(value).detach().flatten().numpy()
        axes[node] = axis
        neutral = np.ones(width), np.zeros(width)
        pair = (numbers, neutral[1]) if what in SCALES else (neutral[0], numbers)
        affine = ops.Affine(channels_first(size, axis), node.name, 0, *pair)
        return _Lowered((affine,), (source,))

    def _tensor(self, node: fx.Node) -> Tensor:
        found: Any = self._network
        for part in str(node.target).split("."):
            found = getattr(found, part)
        assert isinstance(found, Tensor)
        return found

    def _call(self, node: fx.Node, carrying: Carrying | None = None) -> _Lowered:
        """Leave a node as the call that it is."""
        axes, size = self._reader.axes, node.meta["size"]
        inputs = tuple(node.all_input_nodes)
        what: nn.Module | Tensor | None = None
        if node.op == "call_module":
            what = self._modules[str(node.target)]
        elif node.op == "get_attr":
            what = self._tensor(node)
        name = node.name if node.op != "call_module" else str(node.target)
        shape: Shape = (0,)
        axis = -1
        if size and (len(size) > 1 or node.op == "get_attr"):
            axis = axes[node] = carrying.axis if carrying else self._reader.likely_axis(node)
            shape = channels_first(size, axis)
        call = ops.Call(shape, name, axis, node, what, ())
        if carrying:
            call = replace(call, carried=carrying.carried, product=carrying.product)
            return _Lowered((call,), inputs, carrying.sources)
        tensors = tuple(source for source in inputs if source in axes)
        return _Lowered((call,), inputs, () if self._reader.reads_size(node) else tensors)


def _is_portable(layer: Layer, size: Size) -> bool:
    """Whether every format has a layer with a result of this shape."""
    return isinstance(layer, nn.Conv2d) or (isinstance(layer, nn.Linear) and len(size) == 2)


def _folds(layer: ops.Operation, place: int, shared: set[int]) -> bool:
    """Whether a scale and a shift become part of the layer before: nothing else reads it, too."""
    return isinstance(layer, ops.Conv | ops.Linear) and place not in shared


def _folded(layer: ops.Operation, affine: ops.Affine) -> ops.Conv | ops.Linear:
    assert isinstance(layer, ops.Conv | ops.Linear)
    scale = affine.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    bias = layer.bias * affine.scale + affine.shift
    return replace(layer, weight=layer.weight * scale, bias=bias, biased=True)


def masked_copy(model: nn.Module, masks: Masks, dtype: torch.dtype) -> nn.Module:
    """Copy a network in eval mode, on the CPU; InputError if its pruned weights are not 0."""
    check_applied(model, masks)
    return cast(copy_network(model), "cpu", dtype).eval()


def _lowered(node: fx.Node, what: Any, axis: int) -> list[ops.Computed] | None:
    """Return the operations of a node that calls a module, function or method (its name) with one
    result as a chain; None if it is unknown."""
    size: Size = node.meta["size"]
    before: Shape = node.all_input_nodes[0].meta["shape"]
    arguments = (*node.args[1:], *node.kwargs.values())
    is_module = isinstance(what, nn.Module)
    shape = channels_first(size, axis if len(size) >= -axis else -1)
    at = (shape, str(node.target) if is_module else node.name, 0)
    match what:
        case nn.modules.conv._ConvNd(padding_mode="zeros", padding=tuple()) as conv:
            weight = _with_gaps(conv)
            bias, padding = _bias(conv.bias, len(weight)), tuple(map(int, conv.padding))
            layer = ops.Conv(
                *(*at, weight, bias),
                stride=conv.stride,
                padding=padding,
                groups=conv.groups,
                dilation=conv.dilation,
                biased=conv.bias is not None,
            )
            if conv.transposed:
                return [ops.ConvTranspose(**vars(layer), output_padding=conv.output_padding)]
            return [layer]
        case nn.modules.batchnorm._BatchNorm() as norm if norm.running_mean is not None:
            return [ops.Affine(*at, *_scale_and_shift(norm))]
        case nn.LeakyReLU(negative_slope=slope):
            return [ops.Activation(*at, "leaky_relu", slope)]
        case (
            nn.MaxPool2d(dilation=1 | (1, 1), return_indices=False)
            | nn.AvgPool2d(count_include_pad=True, divisor_override=None)
        ) as pool:
            function: Literal["max", "average"] = "average"
            if isinstance(pool, nn.MaxPool2d):
                function = "max"
            window, steps = _pair(pool.kernel_size), _pair(pool.stride)
            return [ops.Pool(*at, function, window, steps, _pair(pool.padding), pool.ceil_mode)]
        case nn.AdaptiveMaxPool2d() if _divides(before, shape):
            return [_equal_parts("max", at, before)]
        case nn.AdaptiveAvgPool2d() | F.adaptive_avg_pool2d if _divides(before, shape):
            return [_equal_parts("average", at, before)]
        case torch.mean | "mean" if len(before) == 3 and arguments in OVER_IMAGE:
            pooled = _equal_parts("average", ((before[0], 1, 1), *at[1:]), before)
            return [pooled, ops.Flatten(*at)]
        case ZeroPad(stride=stride):
            channels = np.arange(shape[0])
            taken = np.where(channels < before[0], channels, -1)
            widened = ops.Channels(shape, f"{at[1]}.widened", at[2], taken)
            if stride == 1:
                return [widened]
            # The strides of a shortcut without parameters are a pool; see `ZeroPad`.
            shape, window = (before[0], *shape[1:]), (stride, stride)
            strides = ops.Pool(shape, *at[1:], "average", window, window, (0, 0), ceil_mode=True)
            return [strides, widened]
    known = FUNCTIONS.get(plain_type(what) if is_module else what)
    return None if known is None else [ops.Activation(*at, known)]


def _is_sum(node: fx.Node) -> bool:
    """Whether an addition is of two results of one shape, without a factor."""
    shapes = [given.meta["shape"] for given in node.args if isinstance(given, fx.Node)]
    return shapes == [node.meta["shape"]] * 2 and not node.kwargs


def _divides(before: Shape, after: Shape) -> bool:
    """Whether an image can be cut into equal parts, one for each pixel of the result."""
    return len(before) == 3 and not any(b % a for b, a in zip(before[1:], after[1:], strict=True))


def _equal_parts(function: Any, at: Place, before: Shape) -> ops.Pool:
    window = (before[1] // at[0][1], before[2] // at[0][2])
    return ops.Pool(*at, function, window, window, (0, 0), ceil_mode=False)


def _with_gaps(conv: nn.modules.conv._ConvNd) -> Array:
    """Return a convolution's weight without dilation, with zeros in the gaps: (outputs, inputs of a
    group, height, width)."""
    kernel = conv.weight.shape[2:]
    weight = by_output(conv, conv.weight.detach()).unflatten(2, kernel)
    pairs = list(zip(kernel, conv.dilation, strict=True))
    window = [(length - 1) * step + 1 for length, step in pairs]
    whole = weight.new_zeros(*weight.shape[:2], *window)
    whole[(..., *(slice(None, None, step) for _, step in pairs))] = weight
    return whole.numpy()


def _scale_and_shift(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Array, Array]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = 1 / torch.sqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach()
    return scale.numpy(), shift.numpy()


def _bias(bias: Tensor | None, width: int) -> Array:
    return np.zeros(width) if bias is None else bias.detach().numpy()


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
