"""Differences from the base with their intervals: of the confirmed, and beside published ones."""

from typing import Any

from sculpt.results.against_published import JudgedError, PublishedRow, families_shown
from sculpt.results.confirmation import ConfirmedRow
from sculpt.results.report.content import Content
from sculpt.results.report.drawing import (
    Figure,
    axis,
    dots,
    escaped,
    figure,
    hover,
    marker,
    percents,
    spread,
)
from sculpt.results.tables.ranking import TITLES
from sculpt.units import points, signed

MOST_ROWS = 30
"""Beside published differences; the tables have all."""

APART = 0.24
"""Between what stands in one row, as a share of the distance of two rows."""

ZERO = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "layer": "below"}
LOOKS = (("@s1", "circle"), ("@s2", "diamond-open"))

Interval = tuple[float, str, JudgedError | ConfirmedRow]
"""Where it stands in the figure, what it is called, and its difference and verdict."""


def confirmation_intervals(content: Content) -> Figure | None:
    """Draw each confirmed difference of test errors with its interval: a forest plot."""
    found = content.document["confirmation"]
    rows = [row for row in (found["rows"] if found else []) if row["difference"]]
    shuffled = [row["arm"] == "shuffled" for row in rows]
    labels = [
        f"trial {row['trial']}" + (", shuffled" if control else "")
        for row, control in zip(rows, shuffled, strict=True)
    ]
    placed = list(zip(range(len(rows)), labels, rows, strict=True))
    series = {
        "candidate − base": [placed[i] for i, control in enumerate(shuffled) if not control],
        "shuffled − its own candidate": [
            placed[i] for i, control in enumerate(shuffled) if control
        ],
    }
    return _forest("difference of test errors (points)", labels, series, [])


def published_intervals(content: Content) -> Figure | None:
    """Draw measured differences with their intervals, and the published ones as marks beside."""
    found = content.document["published"]
    families = families_shown(found) if found else []
    rows = [
        row
        for row in (found["rows"] if found else [])
        if row["role"] == "candidate"
        and any((judged := row[family]) and judged["difference"] for family in families)
    ][:MOST_ROWS]
    labels = [f"trial {row['trial']}" for row in rows]
    above = -APART * len(families) / 2
    series: dict[str, list[Interval]] = {
        TITLES[family]: [
            (place + above + APART * index, labels[place], judged)
            for place, row in enumerate(rows)
            if (judged := row[family]) and judged["difference"]
        ]
        for index, family in enumerate(families, start=1)
    }
    marks = _published_marks(rows, above)
    return _forest("difference from the base (points)", labels, series, marks)


def _forest(
    title: str, labels: list[str], series: dict[str, list[Any]], marks: list[dict[str, Any]]
) -> Figure | None:
    """Return intervals of several series, a row for each label; None without any."""
    if not labels:
        return None
    looks = zip(series.items(), LOOKS, strict=False)
    traces = [_intervals(found, name, *look) for (name, found), look in looks if found]
    ticks = {"tickmode": "array", "tickvals": list(range(len(labels)))}
    ticks |= {"ticktext": list(map(escaped, labels)), "range": [len(labels) - 0.5, -0.5]}
    return figure(
        marks + traces,
        140 + 44 * len(labels),
        xaxis=axis(title),
        yaxis=axis("", zeroline=False, **ticks),
        shapes=[ZERO | {"line": {"color": "@ink", "width": 1.5}}],
        showlegend=True,
    )


def _published_marks(rows: list[PublishedRow], offset: float) -> list[dict[str, Any]]:
    """Return the published differences as points without intervals, if any row has one."""
    known = {
        place: difference
        for place, row in enumerate(rows)
        if (figure := row["published"]) and (difference := figure["difference"]) is not None
    }
    if not known:
        return []
    texts = [
        hover(f"published, as trial {rows[place]['trial']}", f"{signed(100 * difference)} points")
        for place, difference in known.items()
    ]
    trace = dots(percents(known.values()), [p + offset for p in known], texts, "published")
    return [trace | {"marker": marker("@s3", "x-thin-open", 10, line={"width": 2.5})}]


def _intervals(rows: list[Interval], name: str, colour: str, symbol: str) -> dict[str, Any]:
    """Return differences as points with intervals."""
    found = [difference for *_, row in rows if (difference := row["difference"])]
    texts = [
        hover(label, f"{points(difference)} points", row["verdict"])
        for (_, label, row), difference in zip(rows, found, strict=True)
    ]
    places = [place for place, *_ in rows]
    trace = dots(percents(difference["mean"] for difference in found), places, texts, name)
    trace["marker"] = marker(colour, symbol, 11, line={"width": 2, "color": colour})
    up = percents(difference["high"] - difference["mean"] for difference in found)
    down = percents(difference["mean"] - difference["low"] for difference in found)
    trace["error_x"] = spread(up, colour, arrayminus=down, thickness=2, width=6)
    return trace
