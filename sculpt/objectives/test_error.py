"""Error on the test images, to report alone."""

from statistics import mean
from typing import Any

from sculpt.objectives import Objective
from sculpt.registry import OBJECTIVES


@OBJECTIVES.register("test_error")
class TestError(Objective):
    """Share of test images classified wrongly, mean over the trial's seeds.

    None where a seed did not read them: the test images are for what has been chosen already.
    """

    unit = "fraction"
    direction = "minimize"
    report_only = True

    @staticmethod
    def read(record: dict[str, Any]) -> float | None:
        errors = record["test_errors"]
        return None if None in errors else mean(errors)
