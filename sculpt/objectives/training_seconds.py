"""How long training took."""

from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("training_seconds")
class TrainingSeconds(Objective):
    """Wall-clock seconds of training, mean over the trial's seeds."""

    unit = "seconds"
    direction = "minimize"

    @staticmethod
    def read(record: dict[str, Any]) -> float:
        return record["training_seconds"]
