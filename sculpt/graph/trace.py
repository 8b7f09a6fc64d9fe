"""A forward pass as a torch.fx graph whose nodes know the shapes of their results."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from sculpt.graph.shapes import QuickShapes
from sculpt.models.residual_blocks import ZeroPad

Shape = tuple[int, ...]
"""Shape of a result for one image: (channels, height, width), or (channels,)."""


class NotTraceableError(Exception):
    """Why a network cannot be traced: `that of Network is not (reason)`."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # It is understood as a whole.
        return isinstance(m, ZeroPad) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        output = super().run_node(n)
        n.meta["shape"] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        return output


def symbolic_trace(network: nn.Module) -> fx.Graph:
    """Trace a forward pass in the network's mode, without shapes; see `trace`."""
    try:
        return _Tracer().trace(network)
    except Exception as error:
        # Whatever a foreign forward pass raises when it is given symbols for tensors.
        raise _not_traceable(network, error) from error


def trace(network: nn.Module, shape: Shape) -> fx.Graph:
    """Trace a forward pass in the network's mode.

    Args:
        network: A copy, all on one device and of one precision: it is evaluated once, on zeros.
        shape: Of one image.

    Returns:
        Nodes in order of execution; the `meta["shape"]` of each is that of its result for one
        image, `()` if that is no tensor with channels.

    Raises:
        NotTraceableError: the forward pass cannot be traced, or does not take such images.
    """
    graph = symbolic_trace(network)
    like = next(network.parameters(), torch.empty(0))
    inputs = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
    try:
        with torch.no_grad(), QuickShapes():
            # In training mode a network may do more than shapes need, which not every device can.
            _Shapes(fx.GraphModule(network, graph).eval()).run(inputs)
    except Exception as error:
        raise _not_traceable(network, error) from error
    return graph


def _not_traceable(network: nn.Module, error: Exception) -> NotTraceableError:
    reason = str(error).partition("\n")[0]
    return NotTraceableError(f"that of {type(network).__name__} is not ({reason})")
