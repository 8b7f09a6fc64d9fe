"""The calls of a forward pass with the weights that masks keep, as training runs them."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, fx, nn

from sculpt.diagnostics.layers import Layer, Masks, by_output
from sculpt.errors import CompactionError
from sculpt.graph import calls as graph_calls
from sculpt.graph.channels import Link, Mask
from sculpt.graph.trace import NotTraceableError, Shape, symbolic_trace, trace


@dataclass(frozen=True, eq=False)
class Call(graph_calls.Call):
    """A call whose link has the connections that masks keep.

    It is opaque, too, if the module itself cannot run it with fewer channels: dropout, whose
    random numbers depend on the width, and convolutions of several groups of several channels.
    """

    there: Mask | None = None
    """(channels,), of a depthwise convolution alone: those with kept weights."""


def read_calls(model: nn.Module, masks: Masks, example_inputs: Tensor) -> list[Call]:
    """Return the calls of a forward pass in order of execution; the last is its output.

    Only the shape of the inputs, (N, ...), counts. CompactionError if it cannot be traced.
    """
    graph = _trace(model, tuple(example_inputs.shape[1:]))
    return [_with_masks(call, masks) for call in graph_calls.read_calls(model, graph)]


def _with_masks(read: graph_calls.Call, masks: Masks) -> Call:
    call, layer = Call(**vars(read)), read.module
    if call.kind == "weighted" and isinstance(layer, Layer):
        kept = by_output(layer, masks[f"{call.name}.weight"]).cpu().any(2).numpy()
        if getattr(layer, "groups", 1) == 1:
            return replace(call, link=replace(call.link, connections=kept))
        if layer.groups == layer.in_channels == layer.out_channels:
            link = replace(call.link, carried=(np.arange(call.link.width),))
            return replace(call, link=link, there=kept[:, 0])
    if call.kind == "weighted" or not call.any_width:
        return replace(call, kind="opaque", link=Link(call.link.width, call.inputs))
    return call


def _trace(model: nn.Module, shape: Shape) -> fx.Graph:
    bare = graph_calls.meta_copy(model)
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
