"""Whether to train a compact network in the place of the whole one."""

from typing import TypedDict

from torch import Tensor, nn

from sculpt.compaction.compact import Compaction, Plan, compact, largest_difference
from sculpt.diagnostics.layers import Masks
from sculpt.errors import CompactionError

BLOCK = 16
"""Channels that convolutions compute at once, in bfloat16 on AVX-512 as on tensor cores: 57 of 64
took 0.93 of the time, 48 took 0.56 (both sides of a 3×3, 32×32, 2 cores)."""
LEAST_SAVING = 0.05
"""Of the multiply-accumulates; with less, what else a step does outweighs it."""
MOST_DIFFERENCE = 1e-10
"""Relative, of the logits in float64. Rounding makes 1e-14 of it."""


class Decision(TypedDict):
    """Whether a network is compacted."""

    used: bool
    reason: str | None
    """Why not."""


class PlannedDecision(Plan, Decision):
    """The same of one that can be."""

    difference: float | None
    """Between both networks' logits in float64, relative; None if it was not measured."""


def compact_where_it_pays(
    model: nn.Module, masks: Masks, inputs: Tensor
) -> tuple[Compaction | None, Decision]:
    """Compact a network that is about to be trained, if that saves work and changes nothing.

    Args:
        model: See `compact`.
        masks: Keyed by parameter name.
        inputs: A few, (N, ...), on which both networks must agree.

    Returns:
        The compaction, or None; and the decision, with its plan if there is one, for the record.
    """
    try:
        found = compact(model, masks, inputs, block=BLOCK)
    except CompactionError as error:
        return None, {"used": False, "reason": str(error)}
    plan: PlannedDecision = {**found.plan, "used": False, "difference": None, "reason": None}
    if plan["saving"] < LEAST_SAVING:
        plan["reason"] = f"it saves only {plan['saving']:.1%} of the work"
        return None, plan
    plan["difference"] = difference = largest_difference(model, masks, found, inputs)
    if not difference <= MOST_DIFFERENCE:  # NaN is a difference, too
        plan["reason"] = "the networks do not agree"
        return None, plan
    plan["used"] = True
    return found, plan
