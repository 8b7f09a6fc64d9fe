"""A forward pass as a list of calls, each understood channel by channel or else opaque."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from sculpt.graph.carrying import (
    MOVING,
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
from sculpt.graph.channels import Link
from sculpt.graph.copies import cast, copy_network
from sculpt.graph.trace import Shape, plain_type
from sculpt.models.residual_blocks import ZeroPad

Layer = nn.modules.conv._ConvNd | nn.Linear

Kind = Literal["weighted", "norm", "relu", "pass", "pad", "shift", "product", "opaque"]
"""What a call does: `pass` makes zeros of zeros, `shift` does not."""

RELUS = {nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu"}
"""Their derivative is 0 at 0."""
OF_IMAGES = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, ZeroPad)
"""Modules that take the first dimension of an image for its channels."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, function or method in a forward pass in evaluation."""

    kind: Kind
    name: str
    """Name of the module; empty for a function."""
    module: nn.Module | None
    shape: Shape
    """Shape of its result for one image, the channels first; empty if it has none."""
    link: Link
    """Without connections, which only masks can tell."""
    label: str = ""
    """Name of what it calls, for people."""
    inputs: tuple[int, ...] = ()
    """Positions of the calls whose results it is given; the sources of its link are those whose
    channels it takes, which may stand further before."""
    any_width: bool = True
    """Whether the call as it stands, in training too, does the same with fewer channels."""

    @property
    def positions(self) -> int:
        """Height × width of its result."""
        return torch.Size(self.shape[1:]).numel()


def meta_copy(model: nn.Module) -> nn.Module:
    """Copy a network to the meta device, all in float32: the input has the weights' precision."""
    copied: nn.Module = cast(copy_network(model), "meta", torch.float32)
    return copied


def read_calls(model: nn.Module, graph: fx.Graph) -> list[Call]:
    """Return the calls of a forward pass in order of execution; the last is its output.

    The graph must be that of `trace`, of the model or of a copy.
    """
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
        taken = () if reader.reads_size(node) else tuple(node.all_input_nodes)
        inputs = tuple(places[source] for source in taken)
        width = shape[0] if shape else 0
        link = Link(width, inputs)
        if carrying:
            sources = tuple(places[source] for source in carrying.sources)
            link = Link(width, sources, carried=carrying.carried, product=carrying.product)
        any_width = carrying is None or carrying.any_width
        places[node] = len(found)
        label = describe_call(node, module)
        found.append(Call(kind, name, module, shape, link, label, inputs, any_width))
    return found


def left_whole(calls: Sequence[Call], among: Collection[int]) -> list[str]:
    """Name the calls around which all channels stay, because it is not known what they do.

    Only those at the given positions, and not the last, the output.
    """
    return [
        call.label
        for place, call in enumerate(calls[:-1])
        if place in among
        and call.kind == "opaque"
        and any(calls[source].shape for source in call.link.sources)
    ]


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
            return "weighted", None
        case nn.modules.batchnorm._BatchNorm():
            return "norm", alone
        case ZeroPad():
            channels = np.arange(shape[0])
            return "pad", replace(alone, carried=(np.where(channels < width, channels, -1),))
    carrying = reader.read(node)
    if carrying is None and node.meta["same"] and node.op != "output" and source in reader.axes:
        # Dropout, whose random numbers in training depend on the width.
        return "pass", replace(alone, any_width=False)
    if what in QUOTIENTS or carrying is None:
        return "opaque", None
    if what in MOVING:
        return ("pass", carrying) if _moves_any(carrying, reader) else ("opaque", None)
    if what in RELUS:
        return "relu", carrying
    if len(carrying.sources) > 1:
        return ("product" if what in PRODUCTS else "pass"), carrying
    return _at_zero(node, module), carrying


def _moves_any(carrying: Carrying, reader: ChannelReader) -> bool:
    """Whether a call that moves values can do the same, or be replaced, with fewer channels."""
    (source, *_) = carrying.sources
    size = source.meta["size"]
    whole = carrying.selects or (carrying.flattens and carrying.axis == -1)
    return carrying.any_width or (whole and reader.axes[source] == first_axis(size))


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
