"""A forward pass as a torch.fx graph whose nodes know the shapes of their results."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from sculpt.arithmetic import relative_difference
from sculpt.graph.shapes import QuickShapes
from sculpt.models.residual_blocks import ZeroPad

Shape = tuple[int, ...]
"""Shape of a result for one image: (channels, height, width), or (channels,)."""
Size = tuple[int, ...]
"""Shape of a whole result, its first dimension most often the batch."""


SAME = 1e-6
"""Share by which a graph that takes the network's way differs from it at most."""


class NotTraceableError(Exception):
    """Why a network cannot be traced: `that of Network is not (reason)`."""


def plain_type(module: nn.Module) -> type[nn.Module]:
    """Return a module's class, or the class of PyTorch that it extends and leaves as it is."""
    own: Any = type(module)
    theirs: Any = next(base for base in own.__mro__ if base.__module__.startswith("torch.nn."))
    methods = (name for name, value in vars(theirs).items() if callable(value))
    same = all(getattr(own, n) is getattr(theirs, n) for n in methods if n != "__init__")
    found: type[nn.Module] = theirs if same and own.forward is theirs.forward else own
    return found


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # The first is understood as a whole, as is a layer of another name.
        named = not isinstance(m, nn.Sequential) and plain_type(m) is not type(m)
        return isinstance(m, ZeroPad) or named or super().is_leaf_module(m, module_qualified_name)


def is_leaf(module: nn.Module, name: str) -> bool:
    """Whether a module is one call of a graph, whatever it calls itself."""
    return _Tracer().is_leaf_module(module, name)


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        given: Any = self.map_nodes_to_values(n.args, n)
        first = next((value for value in given if isinstance(value, Tensor)), None)
        version = first is not None and first._version
        output = super().run_node(n)
        is_tensor = isinstance(output, Tensor)
        n.meta["shape"] = tuple(output.shape[1:]) if is_tensor else ()
        n.meta["size"] = tuple(output.shape) if is_tensor else None
        n.meta["value"] = None if is_tensor else output
        n.meta["same"] = first is not None and output is first and first._version == version
        n.meta["writes"] = first is not None and first._version != version and first is given[0]
        return output


def symbolic_trace(network: nn.Module) -> fx.Graph:
    """Trace a forward pass in the network's mode, without shapes; see `trace`."""
    try:
        return _Tracer().trace(network)
    except Exception as error:
        # Whatever a foreign forward pass raises when it is given symbols for tensors.
        raise not_traceable(network, error) from error


def trace(
    network: nn.Module,
    shape: Shape,
    *,
    otherwise: Callable[[nn.Module, Shape], fx.Graph] | None = None,
) -> fx.Graph:
    """Trace a forward pass in the network's mode.

    Args:
        network: A copy, all on one device and of one precision: it is evaluated once, on zeros.
        shape: Of one image.
        otherwise: Traces what torch.fx cannot, for images of that shape alone; without shapes. Also
            where torch.fx has taken another way than the network does, or where the network writes
            into what others read: a graph of calls does not show in which order.

    Returns:
        Nodes in order of execution, with a `meta` of their results for a batch of two: `shape`,
        that for one image, `()` if it is no tensor with channels; `size`, the whole shape, and
        None of what is no tensor; its `value` then; and `same`: whether the call has returned its
        first argument as it was, which is known on devices that compute.

    Raises:
        NotTraceableError: the forward pass cannot be traced, or does not take such images.
    """
    try:
        graph = _with_shapes(network, symbolic_trace(network), shape)
        if otherwise is None or _says_all(network, graph, shape):
            return graph
    except NotTraceableError:
        if otherwise is None:
            raise
    return _with_shapes(network, otherwise(network, shape), shape)


def _with_shapes(network: nn.Module, graph: fx.Graph, shape: Shape) -> fx.Graph:
    """Find the shapes of a graph's results; see `trace`."""
    like = next(network.parameters(), torch.empty(0))
    inputs = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
    try:
        with torch.no_grad(), QuickShapes():
            # In training mode a network may do more than shapes need, which not every device can.
            _Shapes(fx.GraphModule(network, graph).eval()).run(inputs)
    except Exception as error:
        raise not_traceable(network, error) from error
    return graph


def _says_all(network: nn.Module, graph: fx.Graph, shape: Shape) -> bool:
    """Tell whether a graph computes what the network does, and its calls write into nothing that
    others read."""
    for node in graph.nodes:
        if node.meta.get("writes") and (len(node.args[0].users) > 1 or not node.users):
            return False
    answered = answer_to_noise(network, shape)
    if answered is None:
        return True
    noise, expected = answered
    try:
        with torch.no_grad():
            found = tensors_in(fx.GraphModule(network, graph).eval()(noise))
    except Exception:  # what it has traced is not what it does
        return False
    parts = zip(expected, found, strict=False)
    return len(expected) == len(found) and all(relative_difference(*p) < SAME for p in parts)


@torch.no_grad()
def answer_to_noise(
    network: nn.Module, shape: Shape, count: int = 2
) -> tuple[Tensor, list[Tensor]] | None:
    """Return noise (count, *shape) that a network takes, and the tensors that it returns for it.

    The noise is normal, or else from 0 to 1, for networks that refuse other numbers or make NaN of
    them; None if it takes neither.
    """
    like = next(network.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(count)
    for draw in (torch.randn, torch.rand):
        noise = draw(count, *shape, generator=generator, device="cpu").to(like)
        with suppress(Exception):  # whatever a foreign forward pass raises
            found = tensors_in(network(noise.clone()))
            if not any(part.isnan().any() for part in found):
                return noise, found
    return None


def tensors_in(result: Any) -> list[Tensor]:
    """List the tensors among what a network returns."""
    return [part for part in tree_leaves(result) if isinstance(part, Tensor)]


def not_traceable(network: nn.Module, error: Exception) -> NotTraceableError:
    """Say why a network cannot be traced."""
    reason = str(error).partition("\n")[0]
    return NotTraceableError(f"that of {type(network).__name__} is not ({reason})")
