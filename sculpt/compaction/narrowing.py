"""The narrow copy of a network: fewer rows, columns and channels in the same modules.

A narrow convolution on a wide stream gathers the channels that it reads and scatters those that it
computes. Both are 1×1 convolutions with a fixed one-hot weight, which is exact in every precision
(each sum has one term) and on a CPU, in bfloat16, several times as fast as copying channels. A
batch norm stays behind the scattering: it costs no more at full width, and takes the zeros as it
would in the full network, so that its shift trains where the stream is alive.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sculpt.compaction.calls import Call
from sculpt.compaction.plan import LayerPlan
from sculpt.graph.channels import Mask
from sculpt.graph.copies import copy_network
from sculpt.models.residual_blocks import ZeroPad
from sculpt.pruning.masks import Masks, apply_masks


class Gather(nn.Module):
    """Takes some channels: (N, C, H, W) to (N, taken, H, W), or (N, ..., C) to (N, ..., taken).

    Images may have any number of dimensions.
    """

    weight: Tensor
    taken: Tensor

    def __init__(self, taken: Tensor, width: int, like: Tensor, *, last: bool):
        """Take the channels `taken` of `width`, in the precision and on the device of `like`.

        They are the last dimension, or else the first of an image.
        """
        super().__init__()
        self.last = last
        self.register_buffer("taken", taken.to(like.device), persistent=False)
        self.register_buffer("weight", _one_hot(taken, width, like), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the channels taken."""
        if self.last:
            return hidden.index_select(-1, self.taken)
        return _at_every_pixel(hidden, self.weight)


class Scatter(nn.Module):
    """Puts channels among zeros: (N, given, H, W) to (N, C, H, W)."""

    weight: Tensor

    def __init__(self, given: Tensor, width: int, like: Tensor):
        """Put channels at `given` of `width`, in the precision and on the device of `like`."""
        super().__init__()
        weight = _one_hot(given, width, like).transpose(0, 1).contiguous()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return all channels."""
        return _at_every_pixel(hidden, self.weight)


def _at_every_pixel(hidden: Tensor, weight: Tensor) -> Tensor:
    """Convolve images of one, two or three dimensions with a kernel (outputs, inputs, 1, 1)."""
    convolve = (F.conv1d, F.conv2d, F.conv3d)[hidden.dim() - 3]
    return convolve(hidden, weight.view(*weight.shape[:2], *[1] * (hidden.dim() - 2)))


def _one_hot(taken: Tensor, width: int, like: Tensor) -> Tensor:
    """Return a 1×1 kernel, (taken, width, 1, 1)."""
    return F.one_hot(taken, width).to(like.device, like.dtype)[:, :, None, None]


@dataclass(frozen=True)
class Slice:
    """Part of an original's parameter or buffer that a compact network has."""

    name: str
    """In the original."""
    index: tuple[Tensor, ...] = ()
    """Its rows, or its rows and columns; empty for all of it."""

    def of(self, whole: Tensor) -> Tensor:
        """Copy the slice of a tensor, in its memory format."""
        part = whole[self._grid(whole)]
        channels_last = whole.dim() == 4 and whole.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return part.clone(memory_format=layout)

    def write(self, whole: Tensor, values: Tensor) -> None:
        """Set the slice of a tensor, in place."""
        whole[self._grid(whole)] = values

    def _grid(self, whole: Tensor) -> Any:
        index = [positions.to(whole.device) for positions in self.index]
        return (index[0][:, None], index[1]) if len(index) == 2 else tuple(index) or ...


class Narrowing:
    """A network that is being narrowed, and the origin of each of its tensors."""

    def __init__(self, model: nn.Module, masks: Masks):
        """Start from a full copy, with pruned weights as 0."""
        self.network = copy_network(model)
        apply_masks(self.network, masks)
        # Of convolutions alone: a linear layer without a bias may round otherwise.
        self._needless = {name for name, mask in masks.items() if not mask.any()}
        # By identity, because modules move to other names when gathers are put beside them.
        self._slices = {tensor: Slice(name) for name, tensor in named_tensors(self.network).items()}

    def slices(self, compact: nn.Module) -> dict[str, Slice]:
        """Return the origin of every tensor of a module around the network that has one."""
        tensors = named_tensors(compact).items()
        return {name: self._slices[tensor] for name, tensor in tensors if tensor in self._slices}

    def apply(self, plans: list[LayerPlan], calls: list[Call], present: list[Mask]) -> None:
        """Narrow all layers as planned, and the batch norms and shortcuts between them.

        Of each call, `present` are the channels of its result that stay, (original channels,).
        """
        for call, channels in zip(calls, present, strict=True):
            if call.kind == "norm":
                norm = self.network.get_submodule(call.name)
                assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
                self._take(norm, ["weight", "bias", "running_mean", "running_var"], channels)
                norm.num_features = int(channels.sum())
            elif call.there is not None:
                layer = self.network.get_submodule(call.name)
                assert isinstance(layer, nn.modules.conv._ConvNd)
                self._take(layer, ["weight"], channels)
                self._take_bias(layer, call.name, channels)
                layer.in_channels = layer.out_channels = layer.groups = int(channels.sum())
            elif call.kind == "pad":
                pad = self.network.get_submodule(call.name)
                assert isinstance(pad, ZeroPad)
                before = present[call.link.sources[0]]
                pad.extra_channels = int(channels.sum()) - int(before.sum())
        for plan in plans:
            self._narrow_layer(plan)

    def _narrow_layer(self, plan: LayerPlan) -> None:
        layer = self.network.get_submodule(plan.call.name)
        convolves = isinstance(layer, nn.modules.conv._ConvNd)
        sides = [plan.rows, plan.columns]
        self._take(layer, ["weight"], *reversed(sides) if convolves and layer.transposed else sides)
        self._take_bias(layer, plan.call.name, plan.rows)
        rows, columns = int(plan.rows.sum()), int(plan.columns.sum())
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.out_channels, layer.in_channels = rows, columns
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = rows, columns
        assert isinstance(layer.weight, Tensor)
        chain: OrderedDict[str, nn.Module] = OrderedDict()
        if plan.gathered:
            taken = _positions(plan.columns[plan.stream_in])
            width = int(plan.stream_in.sum())
            chain["gather"] = Gather(taken, width, layer.weight, last=plan.linear)
        chain["narrow"] = layer
        if plan.scattered:
            given = _positions(plan.rows[plan.stream_out])
            chain["scatter"] = Scatter(given, int(plan.stream_out.sum()), layer.weight)
        if len(chain) > 1:
            parent, _, attribute = plan.call.name.rpartition(".")
            setattr(self.network.get_submodule(parent), attribute, nn.Sequential(chain))

    def _take_bias(self, layer: nn.Module, name: str, rows: Mask) -> None:
        if isinstance(layer, nn.modules.conv._ConvNd) and f"{name}.bias" in self._needless:
            layer.bias = None  # it stays 0, and is the same without an addition
        self._take(layer, ["bias"], rows)

    def _take(self, module: nn.Module, names: list[str], *chosen: Mask) -> None:
        """Keep only some rows, or rows and columns, of some of a module's tensors."""
        if all(bool(channels.all()) for channels in chosen):
            return
        index = tuple(map(_positions, chosen))
        for name in names:
            whole = getattr(module, name)
            if whole is None:
                continue
            part = Slice(self._slices.pop(whole).name, index)
            narrow = part.of(whole.detach())
            if isinstance(whole, nn.Parameter):
                narrow = nn.Parameter(narrow, whole.requires_grad)
            setattr(module, name, narrow)
            self._slices[narrow] = part


def _positions(channels: Mask) -> Tensor:
    return torch.from_numpy(channels.nonzero()[0])


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers."""
    return dict(module.named_parameters()) | dict(module.named_buffers())
