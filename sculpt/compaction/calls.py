"""A forward pass as a list of calls, each understood channel by channel or else opaque."""

import copy
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sculpt.diagnostics.layers import Masks
from sculpt.errors import CompactionError
from sculpt.graph.channels import Link, Mask
from sculpt.graph.trace import NotTraceableError, Shape, symbolic_trace, trace
from sculpt.models.residual_blocks import ZeroPad

Kind = Literal["weighted", "norm", "relu", "pass", "add", "pad", "flatten", "opaque"]

# Exact types: a subclass may do something else. Dropout is opaque, because its random numbers
# depend on the width. The derivative of what is like a ReLU is 0 at 0.
_PASSING = [nn.Identity, nn.LeakyReLU, nn.Tanh, nn.SELU, nn.ELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish]
_PASSING += [nn.Hardswish, nn.Softsign, nn.MaxPool2d, nn.AvgPool2d]
_PASSING += [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d]
_UNDERSTOOD: dict[Kind, list[Any]] = {
    "weighted": [nn.Conv2d, nn.Linear],
    "norm": [nn.BatchNorm1d, nn.BatchNorm2d],
    "relu": [nn.ReLU, nn.ReLU6, F.relu, torch.relu, "relu"],
    "pass": [*_PASSING, torch.tanh, "tanh", F.avg_pool2d, F.adaptive_avg_pool2d],
    "add": [operator.add, operator.iadd, torch.add],
    "pad": [ZeroPad],
    "flatten": [nn.Flatten, torch.flatten, "flatten"],
}
KINDS = {what: kind for kind, found in _UNDERSTOOD.items() for what in found}


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, function or method in a forward pass."""

    kind: Kind
    name: str
    """Name of the module; empty for a function."""
    module: nn.Module | None
    shape: Shape
    """Shape of its result; empty if that is no tensor with channels."""
    link: Link

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
    for node in graph.nodes:
        module = modules[node.target] if node.op == "call_module" else None
        name = "" if module is None else node.target
        plain = module is None or is_plain(name, module)
        kind = _kind(node, node.target if module is None else module) if plain else "opaque"
        sources = tuple(places[source] for source in node.all_input_nodes)
        before = found[sources[0]].link.width if sources else 0
        mask = masks[f"{name}.weight"].cpu().numpy() if kind == "weighted" else None
        shape = node.meta["shape"]
        places[node] = len(found)
        found.append(Call(kind, name, module, shape, _link(kind, shape, sources, before, mask)))
    return found


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


def _kind(node: fx.Node, what: Any) -> Kind:
    """Classify what a module, function or method does with channels where a node calls it."""
    kind = KINDS.get(type(what) if isinstance(what, nn.Module) else what, "opaque")
    shapes, after = [n.meta["shape"] for n in node.all_input_nodes], node.meta["shape"]
    if kind == "add":
        # Not x + 1, and nothing that is broadcast.
        tensors = [argument for argument in node.args if isinstance(argument, fx.Node)]
        return kind if len(tensors) == 2 and all(s == after for s in shapes) else "opaque"
    if len(shapes) != 1 or not shapes[0]:
        return "opaque"
    (before,) = shapes
    match what:
        case nn.Conv2d():
            understood = what.groups == 1 and len(before) == 3
        case nn.Linear():
            understood = len(before) == 1
        case nn.Flatten():
            understood = what.start_dim == 1 and len(after) == 1
        case torch.flatten | "flatten":
            arguments = (*node.args[1:], *node.kwargs.values())
            understood = arguments in ((1,), (1, -1)) and len(after) == 1
        case _:
            understood = kind == "pad" or before[:1] == after[:1]
    return kind if understood else "opaque"


def _link(
    kind: Kind, shape: Shape, sources: tuple[int, ...], before: int, mask: Mask | None
) -> Link:
    """Return the link of a call whose first source has `before` channels."""
    width = shape[0] if shape else 0
    if mask is not None:
        connections = np.asarray(mask.reshape(*mask.shape[:2], -1).any(axis=2))
        return Link(width, sources, connections)
    if kind == "opaque":
        return Link(width, sources)
    carried = np.arange(before)
    if kind == "flatten":
        carried = carried.repeat(width // before)
    if kind == "pad":
        carried = np.concatenate([carried, np.full(width - before, -1)])
    return Link(width, sources, carried=(carried,) * len(sources))
