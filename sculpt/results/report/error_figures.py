"""Errors against sparsity, as in Lee et al. 2020, Figure 3."""

from typing import Any, Literal

from sculpt import units
from sculpt.results.report.content import Content
from sculpt.results.report.drawing import (
    SERIES,
    SYMBOLS,
    Figure,
    axis,
    describe_trial,
    dots,
    escaped,
    figure,
    hover,
    marker,
    percents,
    spread,
    thinned,
)

MOST_POINTS = 1500
MOST_BARS = 60
"""Candidates with error bars, the best ones: more of them hide each other."""

NAMES = {"val": "validation error", "test": "test error"}


def error_against_sparsity(content: Content) -> Figure | None:
    """Draw candidates with their spread, the base as a band, and published errors if any."""
    kind = content.error
    candidates = [t for t in content.candidates if t.error(kind)]
    if not candidates:
        return None
    shown = thinned(candidates, MOST_POINTS, MOST_BARS)
    traces = []
    for index, budget in enumerate(content.budgets or [None]):
        rows = [t for t in shown if budget is None or t.group == budget]
        name = "candidates" if budget is None else f"{budget:,} parameters"
        colour, symbol = SERIES[index % len(SERIES)], SYMBOLS[index % len(SYMBOLS)]
        # Two traces, one of them without bars, where there are many.
        parts = [(rows[:MOST_BARS], True), (rows[MOST_BARS:], False)]
        for part, first in parts:
            if not part:
                continue
            errors = [error for t in part if (error := t.error(kind))]
            sparsities = percents(t.row["sparsity"] for t in part)
            means = percents(error["mean"] for error in errors)
            trace = dots(sparsities, means, map(describe_trial, part), name)
            trace["marker"] = marker(colour, symbol, 9 if first else 5, opacity=1 if first else 0.5)
            trace["legendgroup"], trace["showlegend"] = name, first
            if first and any(error["std"] for error in errors):
                trace["error_y"] = spread(percents(error["std"] for error in errors), colour)
            traces.append(trace)
    traces += _published(content)
    return figure(
        traces,
        420,
        showlegend=True,
        xaxis=axis("sparsity (%)"),
        yaxis=axis(f"{NAMES[kind]} (%)"),
        shapes=_band(content),
    )


def _band(content: Content) -> list[dict[str, Any]]:
    """Return the base's mean as a line, and its standard deviation as a band."""
    error = content.base and content.base.error(content.error)
    if not error:
        return []
    mean, std = 100 * error["mean"], 100 * (error["std"] or 0)
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    band = {"type": "rect", "y0": mean - std, "y1": mean + std, "fillcolor": "@base/0.16"}
    line = {"type": "line", "y0": mean, "y1": mean, "line": {"color": "@base", "dash": "dash"}}
    line |= {"name": escaped(f"dense base {units.error(error)}"), "showlegend": True}
    return [band | across | {"line": {"width": 0}}, line | across]


def _published(content: Content) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    points = content.published.points if content.published else []
    kinds: tuple[Literal["test", "val"], ...] = ("test", "val")
    for kind in kinds:
        rows = [(p, p[kind]) for p in points if p[kind] is not None]
        # Those of the other kind stand beside them only where there are none of this one.
        if not rows or (kind != content.error and traces):
            continue
        texts = [
            hover(
                f"published, {'base' if p['trial'] == 'base' else 'as trial ' + str(p['trial'])}",
                f"{NAMES[kind]} {units.percent(error or 0)}",
            )
            for p, error in rows
        ]
        x, y = percents(p["sparsity"] for p, _ in rows), percents(error for _, error in rows)
        trace = dots(x, y, texts, f"published ({NAMES[kind]})")
        traces.append(trace | {"marker": marker("@s3", "x-thin-open", 11, line={"width": 2.5})})
    return traces
