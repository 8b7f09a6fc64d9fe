"""Numbers as people read them: one way of writing for each unit, wherever it is shown."""

from dataclasses import asdict, dataclass
from typing import Any, TypedDict


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


@dataclass(frozen=True)
class Metric:
    """What a study judges networks by, lower is better, and how its values are written.

    Shares are written in percent and their differences in points; all others as they are.
    """

    name: str = "error"
    share: bool = True

    @classmethod
    def named(cls, name: str) -> "Metric":
        """Return the metric of a study by its name there, which may be `module:function`."""
        return cls(name.rpartition(":")[2].replace("_", " "), name in ("error", "label_error"))

    @classmethod
    def of_settings(cls, config: object) -> "Metric":
        """Return the metric of a study's settings as JSON; that of classification by default."""
        task = config.get("task") if isinstance(config, dict) else None
        name = task.get("metric") if isinstance(task, dict) else None
        return cls.named(name) if isinstance(name, str) else cls()

    @classmethod
    def of_document(cls, document: Any) -> "Metric":
        """Return the metric of a JSON document, which names it if it is not the error."""
        return cls(**document.get("metric", {}))

    @property
    def in_document(self) -> dict[str, Any]:
        """What a JSON document says of it: nothing of the error."""
        return {} if self == Metric() else {"metric": asdict(self)}

    @property
    def plural(self) -> str:
        """Its name for several."""
        return f"{self.name}s" if self.name.endswith("error") else f"{self.name} values"

    @property
    def heading(self) -> str:
        """Its name at the start of a line."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def unit(self) -> str:
        """How an axis names its unit, in brackets."""
        return " (%)" if self.share else ""

    @property
    def factor(self) -> int:
        """What a value is multiplied by to be written."""
        return 100 if self.share else 1

    @property
    def points(self) -> str:
        """What follows a written difference."""
        return " points" if self.share else ""

    @property
    def title(self) -> str:
        """Title of a column of differences."""
        return "difference in points" if self.share else f"difference in {self.name}"

    def spread(self, found: Error) -> str:
        """Return mean ± standard deviation, and over how many seeds."""
        std = "" if found["std"] is None else f" ± {self._number(found['std'])}"
        percent = " %" if self.share else ""
        return f"{self._number(found['mean'])}{std}{percent} (n {found['n']})"

    def value(self, value: float) -> str:
        """Return the value of one network."""
        return self._number(value) + (" %" if self.share else "")

    def short(self, value: float) -> str:
        """Return the value of one network for a line of progress."""
        return f"{value:.2%}" if self.share else self._number(value)

    def difference(self, difference: Interval) -> str:
        """Return a difference, its interval in brackets."""
        mean, low, high = (self._signed(difference[key]) for key in ("mean", "low", "high"))
        return f"{mean} [{low}, {high}]"

    def _number(self, value: float) -> str:
        return f"{100 * value:.2f}" if self.share else f"{value:.4g}"

    def _signed(self, value: float) -> str:
        return signed(100 * value) if self.share else f"{value:+.3g}".replace("-", "−")


ERROR = Metric()
"""The classification error."""
error, percent, points = ERROR.spread, ERROR.value, ERROR.difference
"""How the classification error is written: of seeds, of one network, and a difference."""


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


def milliseconds(time: float) -> str:
    """Return the latency of a network, given in seconds."""
    return f"{1e3 * time:.3g} ms"


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
