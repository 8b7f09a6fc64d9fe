"""What stays of each layer, and where narrow layers sit on wide streams."""

from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from sculpt.compaction.flow import needed, needed_columns
from sculpt.compaction.graph import Step
from sculpt.compaction.selection import Shape, choose_selection
from sculpt.diagnostics.layers import Masks


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
    rows: Tensor
    """Present in the compact layer."""
    columns: Tensor
    stream_out: Tensor
    """Present behind it: more than its rows if they are scattered."""
    stream_in: Tensor
    """Present before it: more than its columns if they are gathered."""

    @property
    def gathered(self) -> bool:
        """Whether it takes only some channels of its input."""
        return not torch.equal(self.columns, self.stream_in)

    @property
    def scattered(self) -> bool:
        """Whether it computes only some channels of its output."""
        return not torch.equal(self.rows, self.stream_out)

    @property
    def selection_macs(self) -> int:
        """Multiply-accumulates of its gathering and scattering."""
        macs = 0
        if self.gathered and len(self.step.shape) == 4:
            wide, narrow = int(self.stream_in.sum()), int(self.columns.sum())
            macs += wide * narrow * self.step.inputs[0].positions
        if self.scattered:
            wide, narrow = int(self.stream_out.sum()), int(self.rows.sum())
            macs += wide * narrow * self.step.positions
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
    steps: list[Step], present: dict[Step, Tensor], masks: Masks, block: int
) -> list[LayerPlan]:
    """Decide what stays of every conv and linear layer that is understood."""
    return [_plan_layer(step, present, masks, block) for step in steps if step.kind == "weighted"]


def find_present(steps: list[Step], block: int) -> dict[Step, Tensor]:
    """Return the channels of every step whose units are needed in any place.

    Of every layer whole blocks stay, as far as it has them, and at least one.
    """
    keep = torch.zeros(1 + int(torch.cat([step.units for step in steps]).max()), dtype=torch.bool)
    for step in steps:
        keep[step.units[needed(step)]] = True
        if step.kind == "opaque":
            for pinned in (step, *step.inputs):
                keep[pinned.units] = True
    for step in steps:
        if step.kind in ("weighted", "opaque") and step.width:
            channels = keep[step.units]
            keep[step.units] = _whole_blocks(channels, torch.ones_like(channels), block)
    return {step: keep[step.units] for step in steps}


def _plan_layer(step: Step, present: dict[Step, Tensor], masks: Masks, block: int) -> LayerPlan:
    stream_out, stream_in = present[step], present[step.inputs[0]]
    rows = _whole_blocks(stream_out & needed(step), stream_out, block)
    columns = _whole_blocks(stream_in & needed_columns(step, masks, rows), stream_in, block)
    linear = isinstance(step.module, nn.Linear)
    kernel = cast(Tensor, cast(nn.Module, step.module).weight)[0, 0].numel()
    gathered, scattered = choose_selection(
        Shape(kernel, step.inputs[0].positions, step.positions, linear),
        rows=(int(rows.sum()), int(stream_out.sum())),
        columns=(int(columns.sum()), int(stream_in.sum())),
    )
    return LayerPlan(
        step,
        rows if scattered else stream_out,
        columns if gathered else stream_in,
        stream_out,
        stream_in,
    )


def _whole_blocks(wanted: Tensor, present: Tensor, block: int) -> Tensor:
    """Return the wanted channels and others that are present, to fill up blocks; at least one.

    A layer without channels is an error in PyTorch. One that is not needed does no harm.
    """
    count = int(wanted.sum())
    missing = max(1, -(-count // block)) * block - count
    spare = present & ~wanted
    return wanted | (spare & (spare.cumsum(0) <= missing))
