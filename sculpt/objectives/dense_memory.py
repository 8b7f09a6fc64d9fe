"""Memory that training the dense network takes."""

from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("dense_memory")
class DenseMemory(Objective):
    """Bytes that training takes with a dense runtime, as `sculpt check` estimates them.

    Weights with their copies, and a batch's activations, in float32; nothing is saved by zeros.
    None in a record that is older than this objective.
    """

    unit = "bytes"
    direction = "minimize"
    before_training = True

    @staticmethod
    def read(record: dict[str, Any]) -> float | None:
        return record.get("dense_memory")
