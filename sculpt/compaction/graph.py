"""A network as a list of steps that are understood channel by channel, or else opaque.

A *unit* is one channel in all the places where it appears: batch norms, activations and pools
hand it on, an addition makes two units one. So a unit can be removed only everywhere at once.
"""

import copy
import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sculpt.errors import CompactionError
from sculpt.models.residual_blocks import ZeroPad

Kind = Literal["weighted", "norm", "relu", "pass", "add", "pad", "flatten", "opaque"]

# Exact types: a subclass may do something else. Dropout is opaque, because its random numbers
# depend on the width.
KIND_OF_MODULE: dict[type[nn.Module], Kind] = {
    nn.Conv2d: "weighted",
    nn.Linear: "weighted",
    nn.BatchNorm1d: "norm",
    nn.BatchNorm2d: "norm",
    # Their derivative at 0 is 0.
    nn.ReLU: "relu",
    nn.ReLU6: "relu",
    nn.Identity: "pass",
    nn.LeakyReLU: "pass",
    nn.Tanh: "pass",
    nn.SELU: "pass",
    nn.ELU: "pass",
    nn.CELU: "pass",
    nn.GELU: "pass",
    nn.SiLU: "pass",
    nn.Mish: "pass",
    nn.Hardswish: "pass",
    nn.Softsign: "pass",
    nn.MaxPool2d: "pass",
    nn.AvgPool2d: "pass",
    nn.AdaptiveAvgPool2d: "pass",
    nn.AdaptiveMaxPool2d: "pass",
    ZeroPad: "pad",
    nn.Flatten: "flatten",
}
KIND_OF_FUNCTION: dict[Any, Kind] = {
    F.relu: "relu",
    torch.relu: "relu",
    "relu": "relu",
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    torch.flatten: "flatten",
    "flatten": "flatten",
    torch.tanh: "pass",
    "tanh": "pass",
    F.avg_pool2d: "pass",
    F.adaptive_avg_pool2d: "pass",
}


@dataclass(eq=False)
class Step:
    """One operation of a forward pass. Vectors have one entry per channel, dimension 1."""

    kind: Kind
    name: str
    """Of the module it calls; empty for a function."""
    module: nn.Module | None
    shape: tuple[int, ...]
    """Of its output for one image; empty where that is no tensor with channels."""
    inputs: list["Step"]
    users: list["Step"] = field(default_factory=list)
    units: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """The unit of each channel."""
    zero: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    """Exactly zero for all inputs, now and after any number of training steps."""
    read: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    """On a path to the network's output."""

    @property
    def width(self) -> int:
        """The number of its channels."""
        return self.shape[1] if self.shape else 0

    @property
    def positions(self) -> int:
        """Height × width of its output."""
        return torch.Size(self.shape[2:]).numel()

    @property
    def repeats(self) -> int:
        """Of a flattening: how many entries a channel becomes."""
        return self.width // self.inputs[0].width


class Tracer(fx.Tracer):
    """Traces a forward pass; what is understood as a whole is one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ZeroPad) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        output = super().run_node(n)
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        n.meta["channels_of"] = shape if len(shape) >= 2 else ()
        return output


def read_graph(model: nn.Module, example_inputs: Tensor) -> list[Step]:
    """Return the steps of a forward pass in order of execution, with their units.

    Args:
        model:
            On any device; it is not changed.
        example_inputs:
            (N, ...), of which only the shape counts.

    Raises:
        CompactionError: the forward pass cannot be traced.
    """
    graph = _trace(model, example_inputs)
    modules = dict(model.named_modules())
    # A module that is called twice cannot be narrowed for one of its calls.
    calls = Counter(id(modules[n.target]) for n in graph.nodes if n.op == "call_module")
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    owners = Counter(id(model.get_parameter(name)) for name in names)
    read_elsewhere = {str(n.target) for n in graph.nodes if n.op == "get_attr"}

    def is_plain(name: str, module: nn.Module) -> bool:
        """Whether nothing but this one call sees the module and its parameters."""
        return (
            calls[id(module)] == 1
            and all(owners[id(parameter)] == 1 for parameter in module.parameters())
            and not any(used.startswith(f"{name}.") for used in read_elsewhere)
            and not (module._forward_hooks or module._forward_pre_hooks)
        )

    steps: dict[fx.Node, Step] = {}
    for node in graph.nodes:
        module = modules[node.target] if node.op == "call_module" else None
        step = Step(
            "opaque",
            name=node.target if module is not None else "",
            module=module,
            shape=node.meta["channels_of"],
            inputs=[steps[source] for source in node.all_input_nodes],
        )
        if module is None:
            step.kind = _function_kind(step, node)
        elif not any(True for _ in module.parameters()) or is_plain(node.target, module):
            step.kind = _module_kind(step, module)
        for source in step.inputs:
            source.users.append(step)
        steps[node] = step
    _number_units(list(steps.values()))
    return list(steps.values())


def _trace(model: nn.Module, example_inputs: Tensor) -> fx.Graph:
    """Return the graph of a forward pass, its nodes with the shapes of their outputs."""
    # One precision, because the input must have that of the weights.
    bare = copy.deepcopy(model).to("meta", torch.float32)
    inputs = torch.empty(1, *example_inputs.shape[1:], device="meta")
    try:
        in_training = Tracer().trace(bare.train())
        graph = Tracer().trace(bare.eval())
        with torch.no_grad():
            _Shapes(fx.GraphModule(bare, graph)).run(inputs)
    except Exception as error:
        # Whatever a foreign forward pass raises when it is given symbols for tensors.
        reason = str(error).partition("\n")[0]
        raise CompactionError(
            "a network's forward pass must be traceable to be compacted (torch.fx), but that of "
            f"{type(model).__name__} is not ({reason})"
            "; train it without compaction"
        ) from error
    if [(n.op, n.target) for n in in_training.nodes] != [(n.op, n.target) for n in graph.nodes]:
        raise CompactionError(
            "a network must run the same layers in training and in evaluation to be compacted, "
            f"but {type(model).__name__} does not; train it without compaction"
        )
    return graph


def _module_kind(step: Step, module: nn.Module) -> Kind:
    kind = KIND_OF_MODULE.get(type(module), "opaque")
    before, after = step.inputs[0].shape, step.shape
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or len(before) != 4):
        return "opaque"
    if isinstance(module, nn.Linear) and len(before) != 2:
        return "opaque"
    if isinstance(module, nn.Flatten) and (module.start_dim, len(after)) != (1, 2):
        return "opaque"
    same_width = kind in ("norm", "relu", "pass")
    if len(step.inputs) != 1 or not before or (same_width and before[1] != after[1]):
        return "opaque"
    return kind


def _function_kind(step: Step, node: fx.Node) -> Kind:
    kind = KIND_OF_FUNCTION.get(node.target, "opaque")
    shapes = [source.shape for source in step.inputs]
    if kind == "add":
        # Not x + 1, and nothing that is broadcast.
        tensors = [argument for argument in node.args if isinstance(argument, fx.Node)]
        return kind if len(tensors) == 2 and all(s == step.shape for s in shapes) else "opaque"
    if kind == "opaque" or len(shapes) != 1 or not shapes[0]:
        return "opaque"
    if kind == "flatten":
        arguments = (*node.args[1:], *node.kwargs.values())
        return kind if arguments in ((1,), (1, -1)) and len(step.shape) == 2 else "opaque"
    return kind if shapes[0][1] == step.width else "opaque"


def _number_units(steps: list[Step]) -> None:
    """Give every channel of every step its unit."""
    leader: list[int] = []

    def new(count: int) -> list[int]:
        first = len(leader)
        leader.extend(range(first, first + count))
        return list(range(first, first + count))

    def find(unit: int) -> int:
        while leader[unit] != unit:
            leader[unit] = leader[leader[unit]]
            unit = leader[unit]
        return unit

    units: dict[Step, list[int]] = {}
    for step in steps:
        if step.kind in ("weighted", "opaque"):
            units[step] = new(step.width)
            continue
        first = units[step.inputs[0]]
        if step.kind == "add":
            for one, other in zip(first, units[step.inputs[-1]], strict=True):
                leader[find(other)] = find(one)
        if step.kind == "pad":
            first = first + new(step.width - len(first))
        if step.kind == "flatten":
            first = [unit for unit in first for _ in range(step.repeats)]
        units[step] = first
    for step in steps:
        step.units = torch.tensor([find(unit) for unit in units[step]], dtype=torch.long)
