"""Differences from the base with their intervals: confirmed ones, and beside published ones."""

from collections.abc import Sequence

import altair as alt

from sculpt import units
from sculpt.presentation.content import Content
from sculpt.presentation.figures.drawing import (
    LOOKS,
    PUBLISHED,
    Figure,
    Look,
    Row,
    chart,
    colour,
    figure,
    hover,
    number_axis,
    points,
    scaled,
)
from sculpt.results.against_published import families_shown
from sculpt.results.tables.ranking import TITLES

MOST_ROWS = 30
"""Beside published differences; the tables have all."""

ROW = 44
"""Pixels of a row, in which series stand one above the other."""


def confirmation_intervals(content: Content) -> Figure | None:
    """Draw each confirmed difference of test errors with its interval: a forest plot."""
    found = content.document["confirmation"]
    names = {
        "sculpted": "candidate − base",
        "shuffled": "shuffled − its own candidate",
        "erk": "ERK − its own candidate",
    }
    rows = [
        _interval(
            f"trial {row['trial']}" + ("" if row["arm"] == "sculpted" else f", {row['arm']}"),
            names[row["arm"]],
            row["difference"],
            row["verdict"],
            content.metric,
        )
        for row in (found["rows"] if found else [])
        if row["difference"]
    ]
    looks = dict(zip(names.values(), LOOKS, strict=False))
    unit = " (points)" if content.metric.share else ""
    return _forest(f"difference of test {content.metric.plural}{unit}", rows, looks)


def published_intervals(content: Content) -> Figure | None:
    """Draw measured differences with their intervals, and the published ones as marks beside."""
    found = content.document["published"]
    families = families_shown(found) if found else []
    compared = [
        row
        for row in (found["rows"] if found else [])
        if row["role"] == "candidate"
        and any((judged := row[family]) and judged["difference"] for family in families)
    ][:MOST_ROWS]
    rows = []
    for row in compared:
        label = f"trial {row['trial']}"
        published = row["published"] and row["published"]["difference"]
        if published is not None:
            x = 100 * published
            text = hover(f"published, as {label}", f"{units.signed(x)} points")
            rows.append({"label": label, "series": "published", "x": x, "text": text})
        rows += [
            _interval(label, TITLES[family], judged["difference"], judged["verdict"])
            for family in families
            if (judged := row[family]) and judged["difference"]
        ]
    looks = {"published": PUBLISHED}
    looks |= {TITLES[family]: look for family, look in zip(families, LOOKS, strict=False)}
    return _forest("difference from the base (points)", rows, looks)


def _interval(
    label: str,
    name: str,
    found: units.Interval,
    verdict: str | None,
    metric: units.Metric = units.ERROR,
) -> Row:
    """Return a difference and its interval as a mark."""
    x, low, high = scaled([found["mean"], found["low"], found["high"]], metric)
    text = hover(label, f"{metric.difference(found)}{metric.points}", verdict)
    return {"label": label, "series": name, "x": x, "low": low, "high": high, "text": text}


def _forest(title: str, rows: Sequence[Row], looks: dict[str, Look]) -> Figure | None:
    """Return intervals of several series, a row for each label; None without any."""
    if not rows:
        return None
    there = {row["series"] for row in rows}
    looks = {name: look for name, look in looks.items() if name in there}
    drawn = chart("intervals").encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(grid=True, bandPosition=0.5)),
        yOffset=alt.YOffset("series:N", scale=alt.Scale(domain=list(looks), paddingOuter=0.5)),
        tooltip="text:N",
    )
    channels = points(looks)
    return figure(
        {"intervals": rows},
        alt.Chart().mark_rule(size=1.5, color=colour("ink")).encode(x=alt.XDatum(0)),
        drawn.mark_rule(size=2).encode(x="low:Q", x2="high:Q", color=channels["color"]),
        drawn.mark_point(filled=True, size=100).encode(
            x=number_axis(alt.X, "x", title), **channels
        ),
        height=90 + ROW * len({row["label"] for row in rows}),
    )
