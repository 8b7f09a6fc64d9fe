"""Objectives: one measured quantity per file, read off the record of a finished trial.

A file registers a subclass of `Objective`. Values are in the unit given, never scaled.

One that is known before training is read off the record of a single seed, too, as it is before
that seed is trained (`Sculpted.record`): what it reads has the same name in both.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal


class Objective(ABC):
    """A quantity of a finished trial. Subclasses are used as they are, never instantiated."""

    unit: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]
    before_training: ClassVar[bool] = False
    """It can be read off one seed's record before that seed is trained."""
    report_only: ClassVar[bool] = False
    """It is shown, and nothing is ever chosen by it."""

    @staticmethod
    @abstractmethod
    def read(record: dict[str, Any]) -> float | None:
        """Return the value from a trial's record; None where it was not measured."""
