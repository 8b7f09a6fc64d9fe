"""Multiply-accumulates that a perfect sparse runtime would do."""

from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("kept_macs")
class KeptMacs(Objective):
    """Multiply-accumulates on kept weights for one image, mean over the trial's seeds."""

    unit = "macs"
    direction = "minimize"
    before_training = True

    @staticmethod
    def read(record: dict[str, Any]) -> float:
        return record["kept_macs"]
