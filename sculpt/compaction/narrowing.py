"""Making the narrow copy of a network: fewer rows, columns and channels in the same modules."""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.compaction.plan import LayerPlan
from sculpt.compaction.selection import Gather, Scatter
from sculpt.compaction.steps import Step
from sculpt.graph.channels import Mask
from sculpt.models.residual_blocks import ZeroPad


@dataclass(frozen=True)
class Part:
    """Where a parameter or buffer of a compact network comes from."""

    name: str
    """In the original."""
    index: tuple[Tensor, ...] = ()
    """Which rows of it, or which rows and columns; empty for all of it."""

    def of(self, whole: Tensor) -> Tensor:
        """Return a copy of this part of a tensor, in its memory format."""
        part = whole[self._grid(whole)]
        channels_last = whole.dim() == 4 and whole.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return part.clone(memory_format=layout)

    def write(self, whole: Tensor, values: Tensor) -> None:
        """Set this part of a tensor, in place."""
        whole[self._grid(whole)] = values

    def _grid(self, whole: Tensor) -> Any:
        index = [positions.to(whole.device) for positions in self.index]
        return (index[0][:, None], index[1]) if len(index) == 2 else tuple(index) or ...


class Narrowing:
    """A copy of a network in the making, which knows where its tensors come from."""

    def __init__(self, model: nn.Module):
        """Start from a full copy."""
        self.network = copy.deepcopy(model)
        # By identity, because modules move to other names when selections are put beside them.
        self._parts = {tensor: Part(name) for name, tensor in named_tensors(self.network).items()}

    def parts(self, compact: nn.Module) -> dict[str, Part]:
        """Return the origin of every tensor of a module around the network that has one."""
        tensors = named_tensors(compact).items()
        return {name: self._parts[tensor] for name, tensor in tensors if tensor in self._parts}

    def apply(self, plans: list[LayerPlan], steps: list[Step], present: list[Mask]) -> None:
        """Narrow all layers, as planned, and what lies between them.

        Args:
            plans: Of the conv and linear layers.
            steps: All there are.
            present: The channels of each step that stay, over the channels of the original.
        """
        for step, channels in zip(steps, present, strict=True):
            if step.kind == "norm":
                self._narrow_norm(step.name, channels)
            elif step.kind == "pad":
                pad = self.network.get_submodule(step.name)
                assert isinstance(pad, ZeroPad)
                before = present[step.link.sources[0]]
                pad.extra_channels = int(channels.sum()) - int(before.sum())
        for plan in plans:
            self._narrow_layer(plan)

    def _narrow_norm(self, name: str, channels: Mask) -> None:
        norm = self.network.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        self._take(norm, ["weight", "bias", "running_mean", "running_var"], channels)
        norm.num_features = int(channels.sum())

    def _narrow_layer(self, plan: LayerPlan) -> None:
        layer = self.network.get_submodule(plan.step.name)
        self._take(layer, ["weight"], plan.rows, plan.columns)
        self._take(layer, ["bias"], plan.rows)
        rows, columns = int(plan.rows.sum()), int(plan.columns.sum())
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = rows, columns
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = rows, columns
        assert isinstance(layer.weight, Tensor)
        chain: OrderedDict[str, nn.Module] = OrderedDict()
        if plan.gathered:
            taken = _positions(plan.columns[plan.stream_in])
            chain["gather"] = Gather(taken, int(plan.stream_in.sum()), layer.weight)
        chain["narrow"] = layer
        if plan.scattered:
            given = _positions(plan.rows[plan.stream_out])
            chain["scatter"] = Scatter(given, int(plan.stream_out.sum()), layer.weight)
        if len(chain) > 1:
            parent, _, attribute = plan.step.name.rpartition(".")
            setattr(self.network.get_submodule(parent), attribute, nn.Sequential(chain))

    def _take(self, module: nn.Module, names: list[str], *chosen: Mask) -> None:
        """Keep only some rows, or rows and columns, of some of a module's tensors."""
        if all(bool(channels.all()) for channels in chosen):
            return
        index = tuple(map(_positions, chosen))
        for name in names:
            whole = getattr(module, name)
            if whole is None:
                continue
            part = Part(self._parts.pop(whole).name, index)
            narrow = part.of(whole.detach())
            if isinstance(whole, nn.Parameter):
                narrow = nn.Parameter(narrow, whole.requires_grad)
            setattr(module, name, narrow)
            self._parts[narrow] = part


def _positions(channels: Mask) -> Tensor:
    return torch.from_numpy(channels.nonzero()[0])


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers."""
    return dict(module.named_parameters()) | dict(module.named_buffers())
