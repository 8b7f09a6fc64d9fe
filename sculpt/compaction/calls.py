"""A forward pass as a list of calls, each understood channel by channel or else opaque."""

import copy
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sculpt.diagnostics.layers import Layer, Masks, by_output
from sculpt.errors import CompactionError
from sculpt.graph.carrying import (
    PRODUCTS,
    QUOTIENTS,
    Carrying,
    ChannelReader,
    channels_first,
    describe_call,
    first_axis,
    run_call,
    tensors_of,
)
from sculpt.graph.channels import Link, Mask
from sculpt.graph.trace import NotTraceableError, Shape, plain_type, symbolic_trace, trace
from sculpt.models.residual_blocks import ZeroPad

Kind = Literal["weighted", "depthwise", "norm", "relu", "pass", "pad", "shift", "product", "opaque"]
"""What a call does: `pass` makes zeros of zeros, `shift` does not. Dropout is opaque, because its
random numbers depend on the width."""

RELUS = {nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu"}
"""Their derivative is 0 at 0."""
OF_IMAGES = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, ZeroPad)
"""Modules that take the first dimension of an image for its channels."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, function or method in a forward pass."""

    kind: Kind
    name: str
    """Name of the module; empty for a function."""
    module: nn.Module | None
    shape: Shape
    """Shape of its result for one image, the channels first; empty if it has none."""
    link: Link
    label: str = ""
    """Name of what it calls, for people."""
    there: Mask | None = None
    """(channels,), of a depthwise convolution: those with kept weights."""

    @property
    def positions(self) -> int:
        """Height × width of its result."""
        return torch.Size(self.shape[1:]).numel()


def read_calls(model: nn.Module, masks: Masks, example_inputs: Tensor) -> list[Call]:
    """Return the calls of a forward pass in order of execution; the last is its output.

    Only the shape of the inputs, (N, ...), counts. CompactionError if it cannot be traced.
    """
    graph = _trace(model, tuple(example_inputs.shape[1:]))
    modules = dict(model.named_modules())
    # A module that is called twice cannot be narrowed for one of its calls.
    calls = Counter(id(modules[n.target]) for n in graph.nodes if n.op == "call_module")
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    owners = Counter(id(model.get_parameter(name)) for name in names)
    read_elsewhere = {str(n.target) for n in graph.nodes if n.op == "get_attr"}

    def is_plain(name: str, module: nn.Module) -> bool:
        """Whether only this call sees the parameters of a module, if it has any."""
        return not any(True for _ in module.parameters()) or (
            calls[id(module)] == 1
            and all(owners[id(parameter)] == 1 for parameter in module.parameters())
            and not any(used.startswith(f"{name}.") for used in read_elsewhere)
            and not (module._forward_hooks or module._forward_pre_hooks)
        )

    places: dict[fx.Node, int] = {}
    found: list[Call] = []
    reader = ChannelReader(modules)
    for node in graph.nodes:
        module = modules[node.target] if node.op == "call_module" else None
        name = "" if module is None else node.target
        kind, carrying = _read(node, module, reader, module is None or is_plain(name, module))
        shape: Shape = node.meta["shape"]
        if shape and node.op != "get_attr":
            axis = reader.axes[node] = carrying.axis if carrying else _axis(node, kind, reader)
            shape = channels_first(node.meta["size"], axis)
        inputs = () if reader.reads_size(node) else tuple(node.all_input_nodes)
        sources = tuple(places[source] for source in (carrying.sources if carrying else inputs))
        link = Link(shape[0] if shape else 0, sources)
        there = None
        if carrying:
            carried, product = carrying.carried, carrying.product
            link = Link(link.width, sources, carried=carried, product=product)
        if isinstance(module, Layer) and kind in ("weighted", "depthwise"):
            kept = by_output(module, masks[f"{name}.weight"]).cpu().any(2).numpy()
            if kind == "depthwise":
                there = kept[:, 0]
            else:
                link = Link(link.width, sources, connections=kept)
        places[node] = len(found)
        found.append(Call(kind, name, module, shape, link, describe_call(node, module), there))
    return found


def left_whole(calls: list[Call]) -> list[str]:
    """Name the calls around which all channels stay, because it is not known what they do."""
    return [
        call.label
        for call in calls[:-1]
        if call.kind == "opaque" and any(calls[source].shape for source in call.link.sources)
    ]


def _trace(model: nn.Module, shape: Shape) -> fx.Graph:
    # One precision, because the input must have that of the weights.
    bare = copy.deepcopy(model).to("meta", torch.float32)
    try:
        in_training, graph = symbolic_trace(bare.train()), trace(bare.eval(), shape)
    except NotTraceableError as error:
        raise CompactionError(
            "a network's forward pass must be traceable to be compacted (torch.fx), but "
            f"{error}; train it without compaction"
        ) from error
    if [(n.op, n.target) for n in in_training.nodes] != [(n.op, n.target) for n in graph.nodes]:
        raise CompactionError(
            "a network must run the same layers in training and in evaluation to be compacted, "
            f"but {type(model).__name__} does not; train it without compaction"
        )
    return graph


def _axis(node: fx.Node, kind: Kind, reader: ChannelReader) -> int:
    """Return the dimension that holds the channels of a result: a layer's, or else a guess."""
    if kind == "weighted":
        return reader.axes[node.all_input_nodes[0]]
    return reader.likely_axis(node)


def _read(
    node: fx.Node, module: nn.Module | None, reader: ChannelReader, plain: bool
) -> tuple[Kind, Carrying | None]:
    """Classify what a call does with channels, and find where those of its result come from."""
    what = node.target if module is None else plain_type(module)
    shape, sources = node.meta["shape"], node.all_input_nodes
    if not plain or not shape or not sources or any(s not in reader.axes for s in tensors_of(node)):
        return "opaque", None
    source = sources[0]
    before, width, axis = source.meta["size"], reader.width(source), reader.axes.get(source, 0)
    alone = Carrying((source,), (np.arange(width),), axis)
    match module:
        case nn.Linear():
            return ("weighted" if axis == -1 else "opaque"), None
        case _ if isinstance(module, OF_IMAGES) and axis != first_axis(before):
            return "opaque", None
        case nn.modules.conv._ConvNd() if len(before) == module.weight.dim():
            if module.groups == 1:
                return "weighted", None
            each = module.groups == module.in_channels == module.out_channels
            return ("depthwise", alone) if each else ("opaque", None)
        case nn.modules.batchnorm._BatchNorm():
            return "norm", alone
        case ZeroPad():
            channels = np.arange(shape[0])
            return "pad", replace(alone, carried=(np.where(channels < width, channels, -1),))
    carrying = reader.read(node)
    if what in QUOTIENTS or carrying is None or not carrying.any_width:
        return "opaque", None
    if what in RELUS:
        return "relu", carrying
    if len(carrying.sources) > 1:
        return ("product" if what in PRODUCTS else "pass"), carrying
    return _at_zero(node, module), carrying


def _at_zero(node: fx.Node, module: nn.Module | None) -> Kind:
    """Tell what a call makes of zeros, and of their gradients."""
    values = {source: source.meta["value"] for source in node.all_input_nodes}
    (source,) = tensors_of(node)
    values[source] = torch.zeros(source.meta["size"], requires_grad=True)
    with torch.enable_grad():
        result = run_call(node, module, {**values, source: values[source] * 1})
        result.sum().backward()
    if not bool(values[source].grad.isfinite().all()):
        return "opaque"
    return "shift" if bool(result.any()) else "pass"
