"""A forward pass as a graph by `torch.export`, for networks that torch.fx gives up on.

The network is run on tensors of its own inputs' shape, so that its control flow may depend on sizes
and its functions may look at what they are given. The number of images in a batch stays a symbol.
What comes back are PyTorch's inner operations; here they become calls of the network's modules
again, and of the functions that `carrying` knows, so that nothing after it sees a difference.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.utils._pytree import tree_map, tree_unflatten

from sculpt.arithmetic import relative_difference
from sculpt.graph.carrying import KNOWN
from sculpt.graph.trace import (
    NotTraceableError,
    Shape,
    answer_to_noise,
    is_leaf,
    not_traceable,
    tensors_in,
)

OTHER_BATCHES = (1, 3)
"""Batches on which a graph must be the same function as its network. It is made from one of two;
that there may be one alone `torch.export` does not consider."""
SAME = 1e-10
"""Difference in float64, as a share of the largest number."""
RENAMED: dict[str, Any] = {
    "view": "reshape",  # of a narrower network the strides may differ
    "_unsafe_view": "reshape",
    "split_with_sizes": torch.split,
    "sym_size": "size",
}
COPIES = ("clone", "lift_fresh_copy", "detach", "alias")
RESHAPING = ("reshape", torch.reshape, torch.flatten, torch.unflatten)


def exported_graph(network: nn.Module, shape: Shape) -> fx.Graph:
    """Trace a forward pass in evaluation by `torch.export`, without shapes; see `trace`.

    Args:
        network: In float64, on the CPU. What is a constant in its forward pass becomes a buffer.
        shape: Of one image.

    Raises:
        NotTraceableError: the forward pass depends on the values of its input, or on how many there
            are, or it writes to the network's own tensors.
    """
    inputs = torch.zeros(2, *shape, dtype=torch.float64)
    try:
        whole = _whole_modules(network, inputs)
        program = torch.export.export(network, (inputs,), dynamic_shapes=({0: Dim.DYNAMIC},))
        if _asked_for_batch(program):
            raise _of_batch(network)
        graph = _Reading(network, program, whole).graph()
        if any(_writes(node) for node in graph.nodes):
            graph = _Reading(network, program.run_decompositions({}), whole).graph()
        _check_other_batches(network, fx.GraphModule(network, graph), shape)
    except NotTraceableError:
        raise
    except Exception as error:
        # Whatever PyTorch's compiler raises, or a foreign forward pass.
        if "Constraints violated" in str(error):
            raise _of_batch(network) from error
        raise not_traceable(network, error) from error
    return graph


def _whole_modules(network: nn.Module, inputs: Tensor) -> set[str]:
    """Name the modules that can be called as a whole: they make one tensor of one, each time."""
    named = {
        name: module
        for name, module in network.named_modules()
        if name and is_leaf(module, name) and not module._forward_hooks | module._forward_pre_hooks
    }
    odd: set[nn.Module] = set()

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if [type(value) for value in (*args, *kwargs, output)] != [Tensor, Tensor]:
            odd.add(module)

    with torch.no_grad(), ExitStack() as hooks:
        for module in named.values():
            hooks.enter_context(module.register_forward_hook(look, with_kwargs=True))
        network(inputs)
    return {name for name, module in named.items() if module not in odd}


class _Reading:
    """The graph of an exported program, as it is written down anew."""

    def __init__(self, network: nn.Module, program: ExportedProgram, whole: set[str]):
        self._network, self._program, self._whole = network, program, whole
        self._graph = fx.Graph()
        self._new: dict[fx.Node, Any] = {}

    def graph(self) -> fx.Graph:
        """Write all nodes anew."""
        nodes: list[fx.Node] = list(self._program.graph.nodes)
        specs = dict(zip(nodes, self._program.graph_signature.input_specs, strict=False))
        for node, spec in specs.items():
            if spec.kind == InputKind.USER_INPUT:
                self._images = self._new[node] = self._graph.placeholder("images")
        for node, spec in specs.items():
            if spec.kind != InputKind.USER_INPUT:
                self._new[node] = self._graph.get_attr(self._owned(spec))
        for module, group in groupby(nodes[len(specs) : -1], self._module_of):
            self._write(module, list(group))
        self._write_output(nodes[-1])
        self._graph.eliminate_dead_code(
            lambda node: node.op in ("placeholder", "output") or _writes(node)
        )
        return self._graph

    def _owned(self, spec: InputSpec) -> str:
        """Name the tensor of the network that an input is; constants become buffers of it."""
        assert spec.target is not None
        if spec.kind != InputKind.CONSTANT_TENSOR:
            return spec.target
        name = f"constant_{spec.target}".replace(".", "_")
        if not hasattr(self._network, name):
            self._network.register_buffer(name, self._program.constants[spec.target])
        return name

    def _module_of(self, node: fx.Node) -> tuple[str, str] | None:
        """Return the call, and the name, of the outermost whole module that a node is part of."""
        stack = node.meta.get("nn_module_stack") or {}
        names = ((call, name) for call, (name, _) in stack.items())
        return next((found for found in names if found[1] in self._whole), None)

    def _write(self, module: tuple[str, str] | None, nodes: list[fx.Node]) -> None:
        """Write nodes as one call of the module that they are part of, or each for itself."""
        found = module and self._ends(self._network.get_submodule(module[1]), nodes)
        if module and found:
            given, result = found
            self._new[result] = self._graph.call_module(module[1], (self._new[given],))
            return
        for node in nodes:
            if _name(node) in COPIES and self._new[node.all_input_nodes[0]].op == "get_attr":
                self._new[node] = self._new[node.all_input_nodes[0]]  # which nothing overwrites
                continue
            args, kwargs = (self._anew(values) for values in (node.args, node.kwargs))
            op, target = _plain_target(node)
            if target in RESHAPING and (reshaped := _reshaped(node)):
                op, args, kwargs = "call_function", (args[0], *reshaped[1:]), {}
                target = reshaped[0]
            self._new[node] = self._graph.create_node(op, target, args, kwargs)

    def _ends(self, module: nn.Module, nodes: list[fx.Node]) -> tuple[fx.Node, fx.Node] | None:
        """Return the only input and the only output of a module's call; None if it has more."""
        inside, own = set(nodes), {*module.parameters(), *module.buffers()}
        taken = {s for node in nodes for s in node.all_input_nodes if s not in inside}
        given = [s for s in taken if isinstance(s.meta["val"], Tensor) and not self._is_own(s, own)]
        results = [node for node in nodes if any(user not in inside for user in node.users)]
        return (given[0], results[0]) if len(given) == len(results) == 1 else None

    def _is_own(self, node: fx.Node, tensors: set[Tensor]) -> bool:
        new = self._new[node]
        if new.op != "get_attr":
            return False
        path, _, name = str(new.target).rpartition(".")
        return getattr(self._network.get_submodule(path), name) in tensors

    def _write_output(self, node: fx.Node) -> None:
        signature = self._program.module_call_graph[0].signature
        (results,) = node.args
        assert isinstance(results, tuple)
        assert signature is not None
        if len(results) != signature.out_spec.num_leaves:
            raise not_traceable(self._network, ValueError("it writes to its own tensors"))
        self._graph.output(tree_unflatten(self._anew(results), signature.out_spec))

    def _anew(self, values: Any) -> Any:
        """Return arguments of the new graph: where the input is, and of its precision."""

        def anew(value: Any) -> Any:
            if isinstance(value, fx.Node):
                return self._new[value]
            if value == torch.float64 or isinstance(value, torch.device):
                name = "dtype" if value == torch.float64 else "device"
                return self._graph.call_function(getattr, (self._images, name))
            return value

        return tree_map(anew, values)


def _plain_target(node: fx.Node) -> tuple[str, Any]:
    """Return the operation and target of a node by which `carrying` knows it, or its own."""
    name = _name(node)
    if name and not _writes(node):
        names = (RENAMED.get(name), getattr(torch, name, None), getattr(F, name, None), name)
        for target in (one for one in names if one in KNOWN or one == "size"):
            return "call_method" if isinstance(target, str) else "call_function", target
    return node.op, node.target


def _name(node: fx.Node) -> str:
    """Return the name of one of PyTorch's inner operations; of others none."""
    target = node.target
    return str(target.overloadpacket.__name__) if isinstance(target, torch._ops.OpOverload) else ""


def _writes(node: fx.Node) -> bool:
    """Whether an operation overwrites what it is given."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _reshaped(node: fx.Node) -> tuple[Any, ...] | None:
    """Return a function that joins or divides dimensions, and its arguments, for a new shape.

    They say nothing of dimensions that stay, which may be fewer channels.
    """
    given: Any = node.args[0]
    assert isinstance(given, fx.Node)
    before, after = (tuple(one.meta["val"].shape)[1:] for one in (given, node))
    if not all(isinstance(length, int) for length in (*before, *after)):
        return None
    for first, last in _joined(before, after):
        return torch.flatten, first + 1, last + 1
    for first, last in _joined(after, before):
        return torch.unflatten, first + 1, after[first : last + 1]
    return None


def _joined(many: Shape, few: Shape) -> Iterator[tuple[int, int]]:
    """Iterate over the first and last dimension of those that are one in another shape."""
    last = len(many) - len(few)
    for first in range(len(few)) if last > 0 else ():
        end = first + last + 1
        if (*many[:first], math.prod(many[first:end]), *many[end:]) == few:
            yield first, end - 1


def _asked_for_batch(program: ExportedProgram) -> bool:
    """Whether what was traced holds for some numbers of images only."""
    values = (node.meta.get("val") for node in program.graph.nodes)
    images = [value for value in values if isinstance(value, Tensor)]
    return any(bool(value.fake_mode.shape_env.guards) for value in images)  # type: ignore[attr-defined]


@torch.no_grad()
def _check_other_batches(network: nn.Module, traced: nn.Module, shape: Shape) -> None:
    """Refuse a graph that is another function than its network for other numbers of images."""
    for count in OTHER_BATCHES:
        if (answered := answer_to_noise(network, shape, count)) is None:
            continue  # then there is nothing to be the same as
        images, expected = answered
        found = tensors_in(traced(images))
        pairs = zip(expected, found, strict=False)
        same = all(relative_difference(*pair) <= SAME for pair in pairs)
        if not same or len(expected) != len(found):
            raise _of_batch(network)


def _of_batch(network: nn.Module) -> NotTraceableError:
    return not_traceable(network, ValueError("it depends on the size of a batch"))
