"""Differences from the base with their intervals: of the confirmed, and beside published ones."""

from collections.abc import Sequence
from typing import Any

from sculpt.results.numbers import percents, points, signed
from sculpt.results.report.content import Content
from sculpt.results.report.drawing import (
    Figure,
    axis,
    dots,
    escaped,
    figure,
    hover,
    marker,
    name_of,
    spread,
)
from sculpt.results.tables.published import TITLES
from sculpt.results.verdict_published import families_shown

MOST_ROWS = 30
"""Beside published differences; the tables have all."""

APART = 0.24
"""Between what stands in one row, as a share of the distance of two rows."""

ZERO = {
    "type": "line",
    "yref": "paper",
    "y0": 0,
    "y1": 1,
    "x0": 0,
    "x1": 0,
    "line": {"color": "@ink", "width": 1.5},
    "layer": "below",
}


def confirmation_intervals(content: Content) -> Figure | None:
    """Draw each confirmed difference of test errors with its interval: a forest plot."""
    found = content.document["confirmation"]
    rows = [row for row in (found["rows"] if found else []) if row["difference"]]
    if not rows:
        return None
    traces = []
    labels = [_label(row) for row in rows]
    for arm, colour, symbol in (("sculpted", "@s1", "circle"), ("shuffled", "@s2", "diamond-open")):
        part = [row for row in rows if row["arm"] == arm]
        if not part:
            continue
        against = "candidate − base" if arm == "sculpted" else "shuffled − its own candidate"
        named = [(_label(row), row) for row in part]
        places = [escaped(label) for label, _ in named]
        traces.append(_intervals(named, places, against, colour, symbol))
    order = [escaped(label) for label in reversed(labels)]
    return figure(
        traces,
        130 + 40 * len(rows),
        xaxis=axis("difference of test errors (points)"),
        yaxis=axis("", type="category", categoryorder="array", categoryarray=order),
        shapes=[ZERO],
    )


def _label(row: dict[str, Any]) -> str:
    name = name_of({"role": "candidate", "trial": row["trial"]})
    return name if row["arm"] == "sculpted" else f"{name}, shuffled"


def published_intervals(content: Content) -> Figure | None:
    """Draw measured differences with their intervals, and the published ones as marks beside."""
    found = content.document["published"]
    if not found:
        return None
    families = families_shown(found)
    rows = [
        row
        for row in found["rows"]
        if row["role"] == "candidate"
        and any(row[family] and row[family]["difference"] for family in families)
    ][:MOST_ROWS]
    if not rows:
        return None
    labels = [name_of(row) for row in rows]
    looks = [("@s1", "circle"), ("@s2", "diamond-open")]
    above = -APART * len(families) / 2
    traces = _published_marks(rows, above)
    for index, (family, look) in enumerate(zip(families, looks, strict=False), start=1):
        known = [p for p, row in enumerate(rows) if row[family] and row[family]["difference"]]
        if known:
            named = [(labels[place], rows[place][family]) for place in known]
            places = [place + above + APART * index for place in known]
            traces.append(_intervals(named, places, TITLES[family], *look))
    ticks = {"tickmode": "array", "tickvals": list(range(len(rows)))}
    ticks |= {"ticktext": [escaped(label) for label in labels], "range": [len(rows) - 0.5, -0.5]}
    return figure(
        traces,
        140 + 44 * len(rows),
        xaxis=axis("difference from the base (points)"),
        yaxis=axis("", zeroline=False, **ticks),
        shapes=[ZERO],
        showlegend=True,
    )


def _published_marks(rows: list[dict[str, Any]], offset: float) -> list[dict[str, Any]]:
    """Return the published differences as points without intervals, if any row has one."""
    known = {
        place: row["published"]["difference"]
        for place, row in enumerate(rows)
        if row["published"] and row["published"]["difference"] is not None
    }
    if not known:
        return []
    texts = [
        hover(f"published, as {name_of(rows[place])}", f"{signed(100 * difference)} points")
        for place, difference in known.items()
    ]
    trace = dots(percents(known.values()), [p + offset for p in known], texts, "published")
    return [trace | {"marker": marker("@s3", "x-thin-open", 10, line={"width": 2.5})}]


def _intervals(
    rows: Sequence[tuple[str, dict[str, Any]]],
    places: Sequence[Any],
    name: str,
    colour: str,
    symbol: str,
) -> dict[str, Any]:
    """Return differences as points with intervals.

    Args:
        rows:
            Each with what it is called, and its `difference` and `verdict`.
        places:
            Of each on the other axis.
        name:
            For the legend.
        colour:
            Of points and intervals.
        symbol:
            Of points.
    """
    found = [row["difference"] for _, row in rows]
    texts = [hover(label, f"{points(r['difference'])} points", r["verdict"]) for label, r in rows]
    trace = dots(percents(d["mean"] for d in found), places, texts, name)
    trace["marker"] = marker(colour, symbol, 11, line={"width": 2, "color": colour})
    up = percents(d["high"] - d["mean"] for d in found)
    down = percents(d["mean"] - d["low"] for d in found)
    trace["error_x"] = spread(up, colour, arrayminus=down, thickness=2, width=6)
    return trace
