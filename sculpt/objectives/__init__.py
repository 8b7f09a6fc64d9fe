"""Objectives: one measured quantity per file, read off the record of a finished trial.

A file registers a subclass of `Objective`. Values are in the unit given, never scaled.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal


class Objective(ABC):
    """A quantity of a finished trial. Subclasses are used as they are, never instantiated."""

    unit: ClassVar[str]
    direction: ClassVar[Literal["minimize", "maximize"]]

    @staticmethod
    @abstractmethod
    def read(record: dict[str, Any]) -> float:
        """Return the value from a trial's record."""
