"""How long the trained network takes for one image."""

from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("latency")
class Latency(Objective):
    """Seconds for one image of the compacted, exported network, mean over the trial's seeds.

    On one thread of the CPU of the machine that ran the trial, by `search.latency_runtime`
    (`sculpt.export.latency`): a front over it depends on the machine. It is measured in studies
    that name it in `search.objectives`, afterwards by `sculpt latency`, and None elsewhere.
    """

    unit = "seconds"
    direction = "minimize"

    @staticmethod
    def read(record: dict[str, Any]) -> float | None:
        return record.get("latency")
