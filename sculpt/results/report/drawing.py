"""Figures as Plotly's JSON. Colours are roles, which the page turns into those of its scheme."""

import math
import textwrap
from collections.abc import Iterable
from typing import Any

from sculpt.results.report.content import Trial
from sculpt.results.rows import rounded

Figure = dict[str, Any]
"""`data` and `layout`, and `least`: the width in pixels below which it is scrolled."""

SERIES = ("@s1", "@s2", "@s3", "@s4", "@s5", "@s6")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Series differ by symbol or dash, too: never by colour alone."""


def escaped(text: Any) -> str:
    """Return a text that Plotly shows as it is: it reads a subset of HTML in all texts."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hover(*lines: Any) -> str:
    """Return lines that are shown beside the pointer, each escaped and none too long."""
    wrapped = [part for line in lines if line for part in textwrap.wrap(str(line), 56) or [""]]
    return "<br>".join(escaped(part) for part in wrapped)


def describe_trial(trial: Trial) -> str:
    """Return what is shown of a trial wherever it is pointed at."""
    return hover(trial.name, trial.params, *map(" ".join, trial.facts.items()))


def percents(values: Iterable[float | None]) -> list[float | None]:
    """Return fractions as percent."""
    return [None if value is None else rounded(100 * value) for value in values]


def cut(name: str, longest: int) -> str:
    """Return a name that is not too long for an axis: the end of it says most."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def figure(data: list[dict[str, Any]], height: int, least: int = 0, **layout: Any) -> Figure:
    """Return a figure; axes and margins fit their texts, and the legend stands above."""
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    defaults: dict[str, Any] = {
        "height": height,
        "legend": legend,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "showlegend": any(trace.get("showlegend", True) for trace in data),
    }
    return {"data": data, "layout": defaults | layout, "least": least}


def axis(title: str, **options: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": escaped(title)}, "automargin": True} | options


def log_axis(title: str, values: Any, **options: Any) -> dict[str, Any]:
    """Return a logarithmic axis with whole powers of ten; a linear one where these are too few."""
    known = [value for value in values if value is not None]
    if not known or min(known) <= 0 or max(known) < 30 * min(known):
        return axis(title, nticks=5) | options
    decades = math.log10(max(known) / min(known))
    power = {"type": "log", "exponentformat": "power", "dtick": max(1, round(decades / 5))}
    return axis(title) | power | options


def dots(x: Any, y: Any, texts: Any, name: str, **options: Any) -> dict[str, Any]:
    """Return points, each with a text beside the pointer."""
    named = {"name": escaped(name), "x": list(x), "y": list(y), "hovertext": list(texts)}
    return {"type": "scatter", "mode": "markers", "hoverinfo": "text"} | named | options


def marker(colour: str, symbol: str = "circle", size: float = 8, **options: Any) -> dict[str, Any]:
    """Return how points look."""
    return {"color": colour, "symbol": symbol, "size": size} | options


def spread(lengths: list[float | None], colour: str, **options: Any) -> dict[str, Any]:
    """Return error bars of these lengths."""
    bars = {"type": "data", "array": lengths, "color": colour, "thickness": 1.2, "width": 3}
    return bars | options


def thinned(rows: list[Any], most: int, first: int = 0) -> list[Any]:
    """Return the first rows and, of the others, evenly as many as reach a number in all."""
    if len(rows) <= most:
        return rows
    rest, left = rows[first:], most - first
    return rows[:first] + [rest[i * len(rest) // left] for i in range(left)]
