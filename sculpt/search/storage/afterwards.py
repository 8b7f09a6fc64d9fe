"""What is measured of a finished trial after its study has written it down.

A finished trial of Optuna's cannot be changed: what comes later is an attribute of its study.
"""

from typing import Any

import optuna

from sculpt.registry import OBJECTIVES

PREFIX = "afterwards/"


def keep_afterwards(study: optuna.Study, number: int, found: dict[str, Any]) -> None:
    """Keep values of a finished trial, in the place of those that it has."""
    study.set_user_attr(f"{PREFIX}{number}", found)


def with_later(record: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's record, or its summary, with what was measured afterwards in its place."""
    objectives = {name: later[name] for name in OBJECTIVES.names() if name in later}
    return record | later | {"objectives": (record.get("objectives") or {}) | objectives}


def read_afterwards(study: optuna.Study) -> dict[int, dict[str, Any]]:
    """Return what was kept of each trial of a study."""
    return {
        int(key.removeprefix(PREFIX)): found
        for key, found in study.user_attrs.items()
        if key.startswith(PREFIX)
    }
