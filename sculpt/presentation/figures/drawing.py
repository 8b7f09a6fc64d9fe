"""The look of all figures: colours by role, series, axes, and texts beside the pointer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from sculpt.results.rows import rounded
from sculpt.units import Metric

Figure = dict[str, Any]
"""A Vega-Lite specification. `usermeta.least`: the width in pixels below which it is scrolled."""

Row = dict[str, Any]
"""A mark's data: `x`, `y`, `series`, `text` (shown beside the pointer), and what it needs else."""

COLOURS = {
    "light": {
        "paper": "#ffffff",
        "ink": "#1b2026",
        "muted": "#5c6670",
        "grid": "#e3e6ea",
        "raised": "#f5f6f8",
        "link": "#00568c",
        "base": "#c04f00",
        "bad": "#c04f00",
        "s1": "#0072b2",
        "s2": "#b8860b",
        "s3": "#a8527f",
        "s4": "#00805f",
        "s5": "#3a8fc4",
        "s6": "#4d4d4d",
        "weak": "#b9c4ce",
        "strong": "#00497a",
    },
    "dark": {
        "paper": "#14181d",
        "ink": "#e8ebee",
        "muted": "#a3adb8",
        "grid": "#2c333b",
        "raised": "#1d232a",
        "link": "#7cc4f0",
        "base": "#ff9447",
        "bad": "#ff9447",
        "s1": "#56b4e9",
        "s2": "#f0d442",
        "s3": "#e08fba",
        "s4": "#2fc49a",
        "s5": "#a9c7ff",
        "s6": "#cfd4d9",
        "weak": "#3d4a56",
        "strong": "#8fd3ff",
    },
}
"""By role, for the page's style sheet, too: Okabe and Ito's, lighter ones where it is dark.

In a chart a colour is a parameter of that name (`colour`), which follows the page's scheme.
"""

LONGEST_LABEL = 28

ZOOM = alt.selection_interval(name="zoom", bind="scales", zoom="wheel![event.shiftKey]")
"""Moves the axes by dragging, and resets them at a double click; the wheel alone scrolls the page.

It is a parameter of one layer, which has fields `x` and `y` of its own.
"""

WIDTH = 720
"""Pixels of a picture, unless its figure has a width of its own."""


def colour(role: str) -> Any:
    """Return the reference to a colour of `COLOURS`."""
    return {"expr": role}


CONFIG: dict[str, Any] = {
    "autosize": {"type": "fit", "contains": "padding"},
    "view": {"stroke": None},
    "axis": {
        "domainColor": colour("muted"),
        "gridColor": colour("grid"),
        "labelColor": colour("ink"),
        "labelFontSize": 11,
        "labelLimit": 260,
        "tickColor": colour("muted"),
        "tickCount": 6,
        "titleColor": colour("ink"),
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": colour("ink"),
        "labelFontSize": 12,
        "labelLimit": 320,
        "orient": "top",
        "symbolOpacity": 1,
        "title": None,
        "titleColor": colour("ink"),
        "titleFontWeight": "normal",
    },
    "point": {"opacity": 1},
    "text": {"color": colour("ink")},
    "title": {
        "anchor": "start",
        "color": colour("ink"),
        "fontSize": 13,
        "fontWeight": "normal",
        "subtitleColor": colour("muted"),
    },
}


@dataclass(frozen=True)
class Look:
    """Look of a series: it differs by shape or dash, too, never by colour alone."""

    colour: str
    """A role in `COLOURS`."""
    shape: str = "circle"
    dash: Sequence[int] = (1, 0)


LOOKS = (
    Look("s1", "circle"),
    Look("s2", "diamond", (6, 3)),
    Look("s3", "square", (2, 2)),
    Look("s4", "triangle-up", (6, 2, 2, 2)),
    Look("s5", "triangle-down", (10, 3)),
    Look("s6", "triangle-right", (10, 3, 2, 3)),
)
BASE = Look("base", "square", (6, 4))
OPPONENT = Look("base", "diamond")
PUBLISHED = Look("s3", "cross")


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Return a look for each of several series of one kind."""
    return {name: LOOKS[place % len(LOOKS)] for place, name in enumerate(names)}


def chart(data: str) -> alt.Chart:
    """Return a chart of rows that `figure` is given by this name, without marks so far."""
    return alt.Chart(alt.NamedData(data))


def series(looks: Mapping[str, Look], **legend: Any) -> dict[str, Any]:
    """Return the channels that tell series apart: `color`, and `shape` or `strokeDash`.

    They have one legend, above the figure. Lines take the channel `strokeDash`, points `shape`.

    Args:
        looks: Of each series, by name.
        legend: How the legend differs from others.
    """
    names, found = list(looks), looks.values()
    wide = 34 + 7 * max(map(len, names), default=0)
    columns: Any = {"expr": f"max(1, floor((containerSize()[0] || {WIDTH}) / {wide}))"}

    def channel(kind: Any, values: list[Any]) -> Any:
        scale = alt.Scale(domain=names, range=values)
        return kind("series:N", scale=scale, legend=alt.Legend(columns=columns, **legend))

    return {
        "color": channel(alt.Color, [colour(look.colour) for look in found]),
        "shape": channel(alt.Shape, [look.shape for look in found]),
        "strokeDash": channel(alt.StrokeDash, [list(look.dash) for look in found]),
    }


def points(looks: Mapping[str, Look]) -> dict[str, Any]:
    """Return the channels of points."""
    return {name: channel for name, channel in series(looks).items() if name != "strokeDash"}


def figure(
    data: Mapping[str, Sequence[Row]],
    *layers: Any,
    height: float,
    title: str | None = None,
    least: int = 0,
    params: Mapping[str, Any] | None = None,
    **encodings: Any,
) -> Figure:
    """Return the specification of layers over each other, as wide as their place.

    Args:
        data: The rows of its charts, by name; a chart of none is left out.
        layers: Altair's charts.
        height: In pixels, with axes and legend.
        title: Above it.
        least: The width in pixels below which it is scrolled.
        params: Parameters that expressions name, and their values.
        encodings: That all layers share.
    """
    layered = alt.layer(*layers, height=height, width="container")
    if encodings:
        layered = layered.encode(**encodings)
    made: Figure = layered.to_dict(validate=False)  # which takes long, of many rows
    del made["config"]  # Altair's
    if title:
        made["title"] = title
    if params:
        values = [{"name": name, "value": value} for name, value in params.items()]
        made["params"] = made.get("params", []) + values
    return made | {"datasets": dict(data), "usermeta": {"least": least}}


def number_axis(channel: Any, field: str, title: str | None, **options: Any) -> Any:
    """Return a linear axis that need not begin at zero."""
    return channel(f"{field}:Q", title=title, scale=alt.Scale(zero=False, nice=True), **options)


def scaled_axis(channel: Any, field: str, title: str | None, values: Iterable[float | None]) -> Any:
    """Return a logarithmic axis where values are far apart, else a linear one."""
    known = [value for value in values if value is not None]
    if not spans_decades(known):
        return number_axis(channel, field, title)
    return channel(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~s" if min(known) >= 1 else "~g"),
    )


def spans_decades(values: Iterable[float | None]) -> bool:
    """Recognise positive values that differ by a factor of 30 or more: a logarithmic axis."""
    known = [value for value in values if value is not None]
    return bool(known) and min(known) > 0 and max(known) >= 30 * min(known)


def cut_labels(longest: int = LONGEST_LABEL) -> str:
    """Return the expression of a label that is not too long: its end says most."""
    label = "datum.label"
    return f"length({label}) > {longest} ? '…' + slice({label}, {1 - longest}) : {label}"


def hover(*lines: object) -> str:
    """Return lines that are shown beside the pointer."""
    return "\n".join(str(line) for line in lines if line)


def scaled(values: Iterable[float | None], metric: Metric) -> list[float | None]:
    """Return values of a metric as they are written: shares as percent."""
    return [None if value is None else rounded(metric.factor * value) for value in values]


def thinned(rows: list[Any], most: int, first: int = 0) -> list[Any]:
    """Return the first rows and, of the others, evenly as many as reach a number in all."""
    if len(rows) <= most:
        return rows
    rest, left = rows[first:], most - first
    return rows[:first] + [rest[i * len(rest) // left] for i in range(left)]
