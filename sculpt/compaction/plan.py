"""The channels that each layer keeps, and where narrow layers sit on wide streams."""

from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from sculpt.compaction.calls import Call
from sculpt.diagnostics.layers import Layer
from sculpt.graph.channels import Liveness, Mask, find_units

COPY_COST = 32
"""Multiply-accumulates that copying one number costs, for linear layers."""


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """Channels of a compact conv or linear layer: bool vectors over the original's channels."""

    call: Call
    before: int
    """Positions (height × width) of its input."""
    rows: Mask
    """Present in the compact layer."""
    columns: Mask
    stream_out: Mask
    """Present behind it: more than its rows if they are scattered."""
    stream_in: Mask
    """Present before it: more than its columns if they are gathered."""

    @property
    def gathered(self) -> bool:
        """Whether it takes only some channels of its input."""
        return not np.array_equal(self.columns, self.stream_in)

    @property
    def scattered(self) -> bool:
        """Whether it computes only some channels of its output."""
        return not np.array_equal(self.rows, self.stream_out)

    @property
    def linear(self) -> bool:
        """Whether it is a linear layer."""
        return isinstance(self.call.module, nn.Linear)

    @property
    def copying_macs(self) -> int:
        """Multiply-accumulates of its gathering and scattering."""
        macs = 0
        if self.gathered and not self.linear:
            macs += int(self.stream_in.sum()) * int(self.columns.sum()) * self.before
        if self.scattered:
            macs += int(self.stream_out.sum()) * int(self.rows.sum()) * self.call.positions
        return macs

    @property
    def cost(self) -> int:
        """Cost of a training step, in multiply-accumulates."""
        # A multiply-accumulate of a copy costs what one of a 3×3 convolution does: without a
        # gradient of its weight it has two passes of three, but 1×1 convolutions wait for memory
        # (measured 38 ms against 40 ms; 128 × 32×32 images, bfloat16, 2 cores; the same at 16×16
        # and 8×8).
        layer = self.call.module
        assert isinstance(layer, Layer)
        kernel, reads = layer.weight[0, 0].numel(), int(self.columns.sum())
        transposed = not isinstance(layer, nn.Linear) and layer.transposed
        positions = self.before if transposed else self.call.positions
        macs = int(self.rows.sum()) * reads * kernel * positions + self.copying_macs
        return macs + (COPY_COST * reads * positions if self.gathered and self.linear else 0)

    def describe(self) -> dict[str, object]:
        """Return its entry in the record: how many of its channels it still has, and copies."""
        return {
            "name": f"{self.call.name}.weight",
            "rows": int(self.rows.sum()),
            "of_rows": len(self.rows),
            "columns": int(self.columns.sum()),
            "of_columns": len(self.columns),
            "gathered": self.gathered,
            "scattered": self.scattered,
        }

    def cheapest(self) -> "LayerPlan":
        """Return it as it is, or without gathering or scattering where that costs less."""
        whole_rows = [self.stream_out] if self.linear else [self.stream_out, self.rows]
        choices = (
            replace(self, rows=rows, columns=columns)
            for columns in (self.stream_in, self.columns)
            for rows in whole_rows
        )
        return min(choices, key=lambda plan: plan.cost)


def plan_layers(
    calls: list[Call], liveness: list[Liveness], present: list[Mask], block: int
) -> list[LayerPlan]:
    """Plan every conv and linear layer that is understood."""
    plans = []
    for call, live, stream_out in zip(calls, liveness, present, strict=True):
        if call.link.connections is None:
            continue
        (source,) = call.link.sources
        stream_in = present[source]
        rows = _whole_blocks(stream_out & live.on_path, stream_out, block)
        wanted = call.link.connections[rows].any(axis=0) & liveness[source].alive
        columns = _whole_blocks(stream_in & wanted, stream_in, block)
        plan = LayerPlan(call, calls[source].positions, rows, columns, stream_out, stream_in)
        plans.append(plan.cheapest())
    return plans


def find_present(calls: list[Call], liveness: list[Liveness], block: int) -> list[Mask]:
    """Return the channels of each call's result whose units are needed anywhere.

    Each layer keeps whole blocks, as far as it has them, and at least one channel.
    """
    units = find_units([call.link for call in calls])
    keep = np.zeros(1 + int(np.concatenate(units).max()), np.bool_)
    for call, live, own in zip(calls, liveness, units, strict=True):
        keep[own[live.on_path]] = True
        if call.kind == "opaque":
            for pinned in (own, *(units[source] for source in call.link.sources)):
                keep[pinned] = True
    for call, own in zip(calls, units, strict=True):
        if call.kind in ("weighted", "opaque") and len(own):
            channels = keep[own]
            keep[own] = _whole_blocks(channels, np.ones_like(channels), block)
    return [keep[own] for own in units]


def _whole_blocks(wanted: Mask, present: Mask, block: int) -> Mask:
    """Add present channels to the wanted ones, to fill up blocks; keep at least one.

    A layer without channels is an error in PyTorch. One that is not needed does no harm.
    """
    count = int(wanted.sum())
    missing = max(1, -(-count // block)) * block - count
    spare = present & ~wanted
    return wanted | (spare & (spare.cumsum() <= missing))
