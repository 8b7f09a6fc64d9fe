"""Size of the network."""

from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("parameters")
class Parameters(Objective):
    """Kept parameters under the study's counting rule."""

    unit = "parameters"
    direction = "minimize"
    before_training = True

    @staticmethod
    def read(record: dict[str, Any]) -> float:
        return record["kept_parameters"]
