"""Errors against sparsity, as in Lee et al. 2020, Figure 3."""

from typing import Literal

import altair as alt

from sculpt import units
from sculpt.presentation.content import Content
from sculpt.presentation.figures.drawing import (
    BASE,
    PUBLISHED,
    ZOOM,
    Figure,
    Row,
    chart,
    colour,
    figure,
    hover,
    looks_of,
    number_axis,
    percents,
    points,
    thinned,
)
from sculpt.presentation.front_figure import describe_trial

MOST_POINTS = 1500
MOST_BARS = 60
"""Candidates with error bars, the best ones: more of them hide each other."""

NAMES = {"val": "validation error", "test": "test error"}


def error_against_sparsity(content: Content) -> Figure | None:
    """Draw candidates with their spread, the base as a band, and published errors if any."""
    kind = content.error
    candidates = [(t, error) for t in content.candidates if (error := t.error(kind))]
    if not candidates:
        return None
    rows = [
        {
            "series": _budget(t.group),
            "x": 100 * t.row["sparsity"],
            **_percents(error),
            "text": describe_trial(t),
            "bars": place < MOST_BARS,
        }
        for place, (t, error) in enumerate(thinned(candidates, MOST_POINTS, MOST_BARS))
    ]
    looks = looks_of(map(_budget, content.groups))
    published = _published(content)
    looks |= {row["series"]: PUBLISHED for row in published}
    base = content.base and content.base.error(kind)
    band: list[Row] = []
    if base:
        name = f"dense base {units.error(base)}"
        looks[name] = BASE
        band = [{"series": name, **_percents(base)}]
    channels = points(looks)
    dense, drawn, elsewhere = map(chart, ("base", "trials", "published"))
    layers = []
    if band:
        layers += [
            dense.mark_rect(opacity=0.16, color=colour("base")).encode(
                y=alt.Y("low:Q"), y2=alt.Y2("high:Q")
            ),
            dense.mark_rule(strokeDash=list(BASE.dash)).encode(
                y=alt.Y("y:Q"), color=channels["color"]
            ),
        ]
    layers += [
        drawn.transform_filter("datum.bars && datum.high > datum.low")
        .mark_rule()
        .encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), x=alt.X("x:Q"), color=channels["color"]),
        drawn.mark_point(filled=True)
        .add_params(ZOOM)
        .encode(
            y=number_axis(alt.Y, "y", f"{NAMES[kind]} (%)"),
            x=number_axis(alt.X, "x", "sparsity (%)"),
            tooltip=alt.Tooltip("text:N"),
            size=alt.SizeValue(24, condition={"test": "datum.bars", "value": 70}),
            opacity=alt.OpacityValue(0.5, condition={"test": "datum.bars", "value": 1}),
            **channels,
        ),
    ]
    if published:
        layers.append(
            elsewhere.mark_point(filled=True, size=90).encode(
                y=alt.Y("y:Q"), x=alt.X("x:Q"), tooltip=alt.Tooltip("text:N"), **channels
            )
        )
    data = {"base": band, "trials": rows, "published": published}
    return figure(data, *layers, height=420)


def _budget(budget: int | None) -> str:
    return "candidates" if budget is None else f"{units.count(budget)} parameters"


def _percents(error: units.Error) -> Row:
    mean, std = error["mean"], error["std"] or 0
    return dict(zip(("y", "low", "high"), percents([mean, mean - std, mean + std]), strict=True))


def _published(content: Content) -> list[Row]:
    rows: list[Row] = []
    found = content.published.points if content.published else []
    kinds: tuple[Literal["test", "val"], ...] = ("test", "val")
    for kind in kinds:
        # Those of the other kind stand beside them only where there are none of this one.
        if kind != content.error and rows:
            continue
        for point in found:
            if (error := point[kind]) is None:
                continue
            whose = "base" if point["trial"] == "base" else f"as trial {point['trial']}"
            x, y = percents([point["sparsity"], error])
            text = hover(f"published, {whose}", f"{NAMES[kind]} {units.percent(error)}")
            rows.append({"series": f"published ({NAMES[kind]})", "x": x, "y": y, "text": text})
    return rows
