"""Kept weights that a signal can pass."""

from statistics import mean
from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("effective_parameters")
class EffectiveParameters(Objective):
    """Kept weights on a path from input to output, as training finds them, mean over the seeds."""

    unit = "weights"
    direction = "maximize"
    before_training = True

    @staticmethod
    def read(record: dict[str, Any]) -> float:
        last_steps = [list(run["signal"].values())[-1] for run in record.get("runs", [record])]
        return mean(step["effective_parameters"] for step in last_steps)
