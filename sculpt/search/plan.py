"""Plans of trials: what a worker is to train."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sculpt.config import Study
from sculpt.record import Role


@dataclass(frozen=True)
class TrialPlan:
    """What one trial is to train."""

    label: int | str
    """What the trial is called where people read: a number, or `base`, `confirm 3`, ..."""
    study: Study
    """With the sampled parameters in place."""
    role: Role
    params: dict[str, Any]
    budget: int
    """Parameters to keep under the study's counting rule."""
    seeds: Sequence[int]
    objectives: Sequence[str]
    """What its values are in Optuna's study."""
    read_test: bool = False
    """Read the test images, once, when the training of a seed has ended."""
    facts: dict[str, Any] = field(default_factory=dict)
    """More to be recorded."""
