"""The channels that each layer keeps, and where narrow layers sit on wide streams."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from torch import nn

from sculpt.compaction.calls import Call
from sculpt.graph.channels import Liveness, Mask, find_units

COPY_COST = 32
"""Multiply-accumulates that copying one number costs, for linear layers."""


class LayerEntry(TypedDict):
    """Entry of a layer in the record of a compaction."""

    name: str
    """Name of its weight."""
    rows: int
    """Output channels that it still computes, of `of_rows`."""
    of_rows: int
    columns: int
    """Input channels that it still reads, of `of_columns`."""
    of_columns: int
    gathered: bool
    """Whether its columns are taken from a wider stream."""
    scattered: bool
    """Whether its rows are put into a wider stream."""


@dataclass(frozen=True)
class LayerSize:
    """Sizes that determine a dense layer's cost: its kernel, and positions before and after."""

    kernel: int
    before: int
    after: int
    linear: bool


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """Channels of a compact conv or linear layer: bool vectors over the original's channels."""

    call: Call
    size: LayerSize
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
    def copying_macs(self) -> int:
        """Multiply-accumulates of its gathering and scattering."""
        macs = 0
        if self.gathered and not self.size.linear:
            macs += int(self.stream_in.sum()) * int(self.columns.sum()) * self.size.before
        if self.scattered:
            macs += int(self.stream_out.sum()) * int(self.rows.sum()) * self.size.after
        return macs

    def describe(self) -> LayerEntry:
        """Return its entry in the record."""
        return {
            "name": f"{self.call.name}.weight",
            "rows": int(self.rows.sum()),
            "of_rows": len(self.rows),
            "columns": int(self.columns.sum()),
            "of_columns": len(self.columns),
            "gathered": self.gathered,
            "scattered": self.scattered,
        }


def choose_copies(
    size: LayerSize, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[bool, bool]:
    """Decide whether gathering, and whether scattering, makes a training step cheaper.

    Args:
        size: Of the layer.
        rows, columns: Needed channels, and present ones.
    """

    def cost(choice: tuple[bool, bool]) -> int:
        gathered, scattered = choice
        reads, writes = columns[not gathered], rows[not scattered]
        macs = reads * writes * size.kernel * size.after
        # A multiply-accumulate of a copy costs what one of a 3×3 convolution does: without a
        # gradient of its weight it has two passes of three, but 1×1 convolutions wait for memory
        # (measured 38 ms against 40 ms; 128 × 32×32 images, bfloat16, 2 cores; the same at 16×16
        # and 8×8).
        if gathered:
            macs += reads * (COPY_COST if size.linear else columns[1] * size.before)
        if scattered:
            macs += writes * rows[1] * size.after
        return macs

    choices = [(g, s) for g in (False, True) for s in (False, True) if not (s and size.linear)]
    return min(choices, key=cost)


def plan_layers(
    calls: list[Call], liveness: list[Liveness], present: list[Mask], block: int
) -> list[LayerPlan]:
    """Plan every conv and linear layer that is understood."""
    plans = []
    for call, live, stream_out in zip(calls, liveness, present, strict=True):
        if not isinstance(call.module, nn.Conv2d | nn.Linear) or call.kind != "weighted":
            continue
        assert call.link.connections is not None
        (source,) = call.link.sources
        stream_in = present[source]
        rows = _whole_blocks(stream_out & live.on_path, stream_out, block)
        wanted = call.link.connections[rows].any(axis=0) & liveness[source].alive
        columns = _whole_blocks(stream_in & wanted, stream_in, block)
        kernel, linear = call.module.weight[0, 0].numel(), isinstance(call.module, nn.Linear)
        size = LayerSize(kernel, calls[source].positions, call.positions, linear)
        gathered, scattered = choose_copies(
            size,
            rows=(int(rows.sum()), int(stream_out.sum())),
            columns=(int(columns.sum()), int(stream_in.sum())),
        )
        rows = rows if scattered else stream_out
        columns = columns if gathered else stream_in
        plans.append(LayerPlan(call, size, rows, columns, stream_out, stream_in))
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
