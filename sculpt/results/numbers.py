"""Numbers as JSON knows them, and as people read them."""

import math
from typing import Any

DIGITS = 6
"""Significant digits of what is written into the page."""


def number(value: Any) -> float | None:
    """Return a finite number, rounded to what a figure can show; None for anything else."""
    if value is None or isinstance(value, bool | str | list | dict):
        return None
    value = float(value)
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def numbers(values: Any) -> list[float | None]:
    """Return each value as `number` does."""
    return [number(value) for value in values]


def percents(values: Any) -> list[float | None]:
    """Return fractions as percent."""
    return [None if value is None else number(100 * value) for value in numbers(values)]


def percent(error: dict[str, Any] | None) -> str:
    """Return an error as text: mean ± standard deviation in percent, and over how many seeds.

    Empty where there is none.
    """
    if error is None:
        return ""
    spread = "" if error["std"] is None else f" ± {100 * error['std']:.2f}"
    return f"{100 * error['mean']:.2f}{spread} % (n {error['n']})"


def points(difference: dict[str, Any] | None) -> str:
    """Return a difference in points of percent with its interval; empty where there is none."""
    if difference is None:
        return ""
    mean, low, high = (signed(100 * difference[key]) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def signed(value: float) -> str:
    """Return a number with its sign and two digits."""
    return f"{value:+.2f}".replace("-", "−")


def short(value: Any) -> str:
    """Return a number for people: large ones with a letter, none as a dash."""
    found = number(value)
    if found is None:
        return "–"
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(found) >= limit:
            return f"{found / limit if letter != 'k' else found / 1e3:,.2f} {letter}"
    return f"{found:,.4g}"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
