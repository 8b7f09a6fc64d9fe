"""Numbers as people read them: one way of writing for each unit, wherever it is shown."""

from typing import TypedDict


class Error(TypedDict):
    """Errors of several seeds in one, as fractions."""

    mean: float
    std: float | None
    """None of one seed."""
    n: int


class Interval(TypedDict):
    """A mean difference of errors, as a fraction, with the ends of its interval."""

    mean: float
    low: float
    high: float


def error(found: Error) -> str:
    """Return mean ± standard deviation in percent, and over how many seeds."""
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.2f}"
    return f"{100 * found['mean']:.2f}{spread} % (n {found['n']})"


def percent(fraction: float) -> str:
    """Return an error of one network."""
    return f"{100 * fraction:.2f} %"


def points(difference: Interval) -> str:
    """Return a difference of errors in points of percent, its interval in brackets."""
    mean, low, high = difference["mean"], difference["low"], difference["high"]
    return f"{signed(100 * mean)} [{signed(100 * low)}, {signed(100 * high)}]"


def signed(value: float) -> str:
    """Return a number with its sign and two digits."""
    return f"{value:+.2f}".replace("-", "−")


def share(fraction: float) -> str:
    """Return a sparsity, a density or another part of a whole."""
    return f"{fraction:.2%}"


def count(number: float) -> str:
    """Format a count in groups of three digits."""
    return f"{number:,.0f}"


def macs(number: float) -> str:
    """Return multiply-accumulates, in thousands or millions unless they are few."""
    if number < 1e4:
        return count(number)
    return f"{number / 1e3:,.2f} k" if number < 1e6 else f"{number / 1e6:,.2f} M"


def seconds(time: float) -> str:
    """Return a time that was measured."""
    return f"{time:,.1f}"


def duration(time: float) -> str:
    """Return seconds as people say them."""
    if time < 120:
        return f"{time:.0f} s"
    return f"{time / 60:.0f} min" if time < 7200 else f"{time / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """Return a number of things, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_tally(trials: dict[str, int]) -> str:
    """Return the counts of a study's trials by state as one line."""
    shown = [f"{trials['complete']} of {trials['total']} trials complete"]
    shown += [
        f"{count} {state}"
        for state, count in trials.items()
        if state not in ("total", "complete") and count
    ]
    return ", ".join(shown)
