"""Validation error after the last epoch."""

from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("val_error")
class ValError(Objective):
    """Share of validation images classified wrongly, mean over the trial's seeds."""

    unit = "fraction"
    direction = "minimize"

    @staticmethod
    def read(record: dict[str, Any]) -> float:
        return record["val_error"]["mean"]
