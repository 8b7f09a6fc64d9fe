"""Checking what is kept of trials: anyone may edit an archive, or write into a storage."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from sculpt.config import Opponent
from sculpt.errors import StorageError
from sculpt.quantities import MILESTONES, SIGNALS, proxies

Finite = Annotated[StrictFloat, AllowInfNan(False)]  # an int is one, too

OF_COMPLETE: dict[str, Any] = {
    "val_error_mean": Finite,
    "val_error_n": StrictInt,
    "val_errors": list[Finite],
    "budget": StrictInt,
    "dense_parameters": StrictInt,
    "kept_parameters": StrictInt,
    "sparsity": Finite,
    "dense_macs": Finite,
    "kept_macs": Finite,
    "seconds": Finite,
}
"""What every finished trial has; others have some of it."""

OF_CONFIRMATION: dict[str, Any] = {
    "candidate": StrictInt | StrictStr,
    "arm": Literal["sculpted", "shuffled", "erk", "dense"],
    "seeds": StrictInt,
}
OF_OPPONENT: dict[str, Any] = {"opponent": Opponent}
OF_SOME: dict[str, Any] = {
    **dict.fromkeys(("dense_memory", "latency", "training_seconds"), Finite),
    **dict.fromkeys(("val_error_std", "epochs", "diverged"), Finite),
    **dict.fromkeys(("error", "infeasible", "out_of_memory", "stopped_because"), StrictStr),
    **dict.fromkeys(("counting", "latency_by"), StrictStr),
    "test_errors": list[Finite | None],
    "objectives": dict[str, Finite],
    "rungs": dict[Annotated[str, "epoch"], Finite],
    "parameters": dict[str, bool | int | float | str],
}


def check_kept(
    found: Any, whose: str, *, complete: bool = False, also: Mapping[str, Any] | None = None
) -> None:
    """Check what is kept of a trial, as attributes of Optuna's or measured later.

    Args:
        found: The attributes.
        whose: Its name in messages.
        complete: Whether it has finished.
        also: What it must have beside, `OF_CONFIRMATION` or `OF_OPPONENT`.

    Raises:
        StorageError: something that is read is missing, or of another kind; the message names it.
    """
    required = (OF_COMPLETE if complete else {}) | dict(also or {})
    try:
        _kinds().validate_python(found)
        if missing := [name for name in required if found.get(name) is None]:
            raise ValueError(f"{missing[0]} is missing")
    except ValueError as error:
        problem = str(error)
        if isinstance(error, ValidationError):
            fault = error.errors(include_url=False)[0]
            key = ".".join(map(str, fault["loc"][:2])) or "whole"
            problem = f"{key} is {fault['input']!r:.60}"
        raise StorageError(
            f"what is kept of {whose} must be as sculpt wrote it, but its {problem}; restore the "
            "storage, or the folder of the archive, from a copy"
        ) from None


@cache
def _kinds() -> TypeAdapter[Any]:
    signals = [f"{step}_{name}" for step in MILESTONES for name in SIGNALS]
    kinds = dict.fromkeys([*signals, *proxies()], StrictFloat)
    kinds |= OF_COMPLETE | OF_CONFIRMATION | OF_OPPONENT | OF_SOME
    optional = {name: kind | None for name, kind in kinds.items()}
    return TypeAdapter(TypedDict("Kept", optional, total=False))  # type: ignore[operator]
