"""What stays of each layer, and where narrow layers sit on wide streams."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from torch import nn

from sculpt.compaction.selection import Shape, choose_selection
from sculpt.compaction.steps import Step
from sculpt.graph.channels import Flow, Mask, find_units


class LayerEntry(TypedDict):
    """What stays of a layer, in numbers."""

    name: str
    """Of its weight."""
    rows: int
    """Output channels that it still computes, of so many."""
    of_rows: int
    columns: int
    """Input channels that it still reads, of so many."""
    of_columns: int
    gathered: bool
    """Whether its columns are taken from a wider stream."""
    scattered: bool
    """Whether its rows are put into a wider stream."""


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What becomes of a conv or linear layer. Bool vectors over the original's channels."""

    step: Step
    shape: Shape
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
    def selection_macs(self) -> int:
        """Multiply-accumulates of its gathering and scattering."""
        macs = 0
        if self.gathered and not self.shape.linear:
            macs += int(self.stream_in.sum()) * int(self.columns.sum()) * self.shape.before
        if self.scattered:
            macs += int(self.stream_out.sum()) * int(self.rows.sum()) * self.shape.after
        return macs

    def describe(self) -> LayerEntry:
        """Return its entry in the plan."""
        return {
            "name": f"{self.step.name}.weight",
            "rows": int(self.rows.sum()),
            "of_rows": len(self.rows),
            "columns": int(self.columns.sum()),
            "of_columns": len(self.columns),
            "gathered": self.gathered,
            "scattered": self.scattered,
        }


def plan_layers(
    steps: list[Step], flows: list[Flow], present: list[Mask], block: int
) -> list[LayerPlan]:
    """Decide what stays of every conv and linear layer that is understood."""
    plans = []
    for step, flow, stream_out in zip(steps, flows, present, strict=True):
        if not isinstance(step.module, nn.Conv2d | nn.Linear) or step.kind != "weighted":
            continue
        assert step.link.connections is not None
        (source,) = step.link.sources
        stream_in = present[source]
        rows = _whole_blocks(stream_out & flow.on_path, stream_out, block)
        wanted = step.link.connections[rows].any(axis=0) & flows[source].alive
        columns = _whole_blocks(stream_in & wanted, stream_in, block)
        kernel, linear = step.module.weight[0, 0].numel(), isinstance(step.module, nn.Linear)
        shape = Shape(kernel, steps[source].positions, step.positions, linear)
        gathered, scattered = choose_selection(
            shape,
            rows=(int(rows.sum()), int(stream_out.sum())),
            columns=(int(columns.sum()), int(stream_in.sum())),
        )
        rows = rows if scattered else stream_out
        columns = columns if gathered else stream_in
        plans.append(LayerPlan(step, shape, rows, columns, stream_out, stream_in))
    return plans


def find_present(steps: list[Step], flows: list[Flow], block: int) -> list[Mask]:
    """Return the channels of every step whose units are needed in any place.

    Of every layer whole blocks stay, as far as it has them, and at least one.
    """
    units = find_units([step.link for step in steps])
    keep = np.zeros(1 + int(np.concatenate(units).max()), np.bool_)
    for step, flow, own in zip(steps, flows, units, strict=True):
        keep[own[flow.on_path]] = True
        if step.kind == "opaque":
            for pinned in (own, *(units[source] for source in step.link.sources)):
                keep[pinned] = True
    for step, own in zip(steps, units, strict=True):
        if step.kind in ("weighted", "opaque") and len(own):
            channels = keep[own]
            keep[own] = _whole_blocks(channels, np.ones_like(channels), block)
    return [keep[own] for own in units]


def _whole_blocks(wanted: Mask, present: Mask, block: int) -> Mask:
    """Return the wanted channels and others that are present, to fill up blocks; at least one.

    A layer without channels is an error in PyTorch. One that is not needed does no harm.
    """
    count = int(wanted.sum())
    missing = max(1, -(-count // block)) * block - count
    spare = present & ~wanted
    return wanted | (spare & (spare.cumsum() <= missing))
