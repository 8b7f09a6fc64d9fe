"""Multiply-accumulates that a dense runtime does."""

from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("macs")
class Macs(Objective):
    """Multiply-accumulates of the network, zeros included, for one image."""

    unit = "macs"
    direction = "minimize"
    before_training = True

    @staticmethod
    def read(record: dict[str, Any]) -> float:
        return record["dense_macs"]
