"""Units of channels: what can be removed of a network so that its layers become narrower.

A unit is one channel in all the places where it appears: in a residual stream, that is in all the
layers which write it, in the norms behind them, and in all the layers which read it. Removing it
removes the rows of the former and the columns of the latter, so that a dense network is left, which
`sculpt.compact` stores as it is counted here.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import Example, InputShape
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import Layer, from_outputs, layer_groups, weights_of
from sculpt.graph.calls import Call, left_whole, meta_copy, read_calls
from sculpt.graph.channels import Link, Mask, Numbers, Tie, find_paths, find_units, push
from sculpt.graph.trace import NotTraceableError, trace


@dataclass(frozen=True, eq=False)
class LayerUnits:
    """Units of the channels of a conv or linear layer."""

    layer: Layer
    rows: Numbers
    """(groups, outputs of a group)."""
    columns: Numbers
    """(groups, inputs of a group)."""
    weights: int
    """Numbers that each pair of a row and a column counts: the size of the kernel, or none."""
    biases: int
    """Numbers that each row counts."""

    def count(self, kept: Mask) -> int:
        """Count what is left of the layer's weight and bias."""
        rows, columns = kept[self.rows].sum(axis=1), kept[self.columns].sum(axis=1)
        return int(self.weights * (rows * columns).sum() + self.biases * rows.sum())

    def add_sizes(self, kept: Mask, sizes: Numbers) -> None:
        """Add the layer's part to `sizes`, (units,); see `ChannelUnits.sizes`."""
        rows, columns = kept[self.rows].sum(axis=1), kept[self.columns].sum(axis=1)
        np.add.at(sizes, self.rows, self.weights * columns[:, None] + self.biases)
        np.add.at(sizes, self.columns, self.weights * rows[:, None])
        units, pairs = self._with_themselves
        # In the rows and the columns of what is kept, the unit itself was counted twice; in those
        # of others not at all.
        np.add.at(sizes, units, self.weights * np.where(kept[units], -pairs, pairs))

    @cached_property
    def _with_themselves(self) -> tuple[Numbers, Numbers]:
        """Units that are rows and columns of one group, and how many pairs that makes."""
        count = 1 + max(int(self.rows.max()), int(self.columns.max()))
        groups = np.arange(len(self.rows))[:, None] * count
        (rows, of_rows), (columns, of_columns) = (
            np.unique(groups + side, return_counts=True) for side in (self.rows, self.columns)
        )
        both, row, column = np.intersect1d(rows, columns, assume_unique=True, return_indices=True)
        return both % count, of_rows[row] * of_columns[column]

    def row_mask(self, kept: Mask) -> Tensor:
        """Make the mask of the bias."""
        return torch.from_numpy(kept[self.rows].flatten())

    def mask(self, kept: Mask) -> Tensor:
        """Make the mask of the weight."""
        pairs = kept[self.rows][:, :, None] & kept[self.columns][:, None, :]
        rows = torch.from_numpy(pairs).flatten(0, 1)[:, :, None]
        kernel = self.layer.weight[0, 0].numel()
        return from_outputs(self.layer, rows.expand(-1, -1, kernel)).clone()


@dataclass(frozen=True, eq=False)
class ChannelUnits:
    """The units of a network's channels."""

    layers: dict[str, LayerUnits]
    """By the name of the weight: layers whose channels can be removed."""
    whole: set[str]
    """Weights and biases that count, of layers that are used, but not understood: they stay."""
    of_whole: int
    """Numbers in those."""
    fixed: Mask
    """(units,): those that must stay, such as inputs, classes, and what is not understood."""
    on_path: Mask
    """(units,): those that lead from an input to the output as long as nothing is removed."""
    places: list[Numbers]
    """Units of each result; one of them must stay."""
    left_whole: list[str]
    """Calls around which all channels stay, because it is not known what they do with them."""

    def count(self, kept: Mask) -> int:
        """Count the numbers that are left."""
        return self.of_whole + sum(layer.count(kept) for layer in self.layers.values())

    def sizes(self, kept: Mask) -> Numbers:
        """Count the numbers that each unit has in common with the kept ones, and its own: (units,).

        By so much it makes the network grow if it is not one of them, and else shrink without it.
        """
        sizes = np.zeros(len(kept), np.int64)
        for layer in self.layers.values():
            layer.add_sizes(kept, sizes)
        return sizes


def find_channel_units(
    model: nn.Module, input_shape: InputShape, prunable: Collection[str]
) -> ChannelUnits:
    """Find the units of a network's channels.

    Args:
        model: On any device; not changed.
        input_shape: Of one input.
        prunable: Names of the weights and biases that count. All channels of a layer stay whose
            weight is not one of them.

    Raises:
        NotTraceableError: the forward pass cannot be traced, or takes no images.
    """
    if isinstance(input_shape, Example):
        kind = "its inputs are several tensors or whole numbers"
        raise NotTraceableError(f"that of {type(model).__name__} is not ({kind})")
    calls = read_calls(model, trace(meta_copy(model).eval(), input_shape))
    links = [_with_weights(call) for call in calls]
    needed = _needed(links)
    units = find_units(
        links, [tie for place in sorted(needed) for tie in _ties(place, calls[place])]
    )
    count = 1 + int(np.concatenate(units).max())
    owners = weights_of(model)
    bias_of = {weight: name for name, weight in owners.items() if name != weight}
    layers: dict[str, LayerUnits] = {}
    fixed = np.zeros(count, np.bool_)
    for place, call in enumerate(calls):
        own, name = units[place], f"{call.name}.weight"
        if place not in needed:
            continue
        if call.kind == "opaque":
            fixed[own] = True
            for source in call.link.sources:
                fixed[units[source]] = True
        elif isinstance(layer := call.module, Layer):
            groups = layer_groups(layer)
            read = units[call.link.sources[0]]
            layers[name] = LayerUnits(
                layer,
                own.reshape(groups, -1),
                read.reshape(groups, -1),
                layer.weight[0, 0].numel() * (name in prunable),
                int(bias_of.get(name) in prunable),
            )
            if name not in prunable:
                fixed[own] = True
    dead = {f"{call.name}.weight" for place, call in enumerate(calls) if place not in needed}
    foreign = measure_cost(model, input_shape).positions.keys() - layers.keys() - dead
    whole = {name for name in prunable if owners[name] in foreign}
    return ChannelUnits(
        layers,
        whole,
        sum(model.get_parameter(name).numel() for name in whole),
        fixed,
        _on_path(links, units, count),
        [units[place] for place in sorted(needed)],
        left_whole(calls, needed),
    )


def _with_weights(call: Call) -> Link:
    """Return the link of a call with all connections that its layer may have."""
    if call.kind != "weighted":
        return call.link
    layer = call.module
    assert isinstance(layer, Layer)
    groups, inputs = layer_groups(layer), layer.weight.shape[1]
    if not isinstance(layer, nn.Linear):
        inputs = layer.in_channels
    each = np.eye(groups, dtype=np.bool_)
    connections = each.repeat(call.link.width // groups, 0).repeat(inputs // groups, 1)
    return Link(call.link.width, call.link.sources, connections)


def _needed(links: list[Link]) -> set[int]:
    """Return the positions of the calls that the output, the last, depends on."""
    needed = {len(links) - 1}
    for place in reversed(range(len(links))):
        if place in needed:
            needed.update(links[place].sources)
    return needed


def _ties(place: int, call: Call) -> Iterator[Tie]:
    """Tie channels of a convolution of several groups, which must stay equal to stay groups.

    Whole groups stay or go, as in a depthwise convolution, or one row of every group and one column
    of every group: whichever makes more units.
    """
    layer = call.module
    if call.kind != "weighted" or not isinstance(layer, Layer) or layer_groups(layer) == 1:
        return
    assert isinstance(layer, nn.modules.conv._ConvNd)
    groups, (source,) = layer.groups, call.link.sources
    rows, columns = np.arange(layer.out_channels), np.arange(layer.in_channels)
    wide, deep = layer.out_channels // groups, layer.in_channels // groups
    if groups >= wide + deep:
        yield Tie(place, rows, source, rows // wide * deep)
        yield Tie(source, columns, source, columns // deep * deep)
    else:
        yield Tie(place, rows, place, rows % wide)
        yield Tie(source, columns, source, columns % deep)


def _on_path(links: list[Link], units: list[Numbers], count: int) -> Mask:
    """Find the units that lead from an input to the output somewhere, with all weights."""
    alive: list[Mask] = []
    for link in links:
        alive.append(push(link, [alive[source] for source in link.sources]))
    found = np.zeros(count, np.bool_)
    for own, live in zip(units, find_paths(links, alive, {len(links) - 1}), strict=True):
        found[own[live.on_path]] = True
    return found
