"""The Pareto front of a report as a picture; in the page its scripts draw it, of any objectives."""

from typing import Any

from sculpt.results.pareto.fronts import Objective
from sculpt.results.report.content import Content, Trial
from sculpt.results.report.drawing import (
    SERIES,
    SYMBOLS,
    Figure,
    axis,
    describe_trial,
    dots,
    figure,
    marker,
)

UNITS = {"fraction": ("%", 100.0)}
"""What is printed in another unit than it is kept in."""


def pareto_front(content: Content) -> Figure | None:
    """Draw finished trials over the two objectives of the study, each budget's front as steps."""
    if len(content.axes) < 2 or not content.trials:
        return None
    kinds = [next(o for o in content.objectives if o["name"] == name) for name in content.axes]
    traces: list[dict[str, Any]] = []
    for index, budget in enumerate(content.budgets or [None]):
        rows = [t for t in content.trials if budget is None or t.group == budget]
        rows = [t for t in rows if all(t.values[name] is not None for name in content.axes)]
        on_front = [t for t in rows if t.label in content.front]
        others = [t for t in rows if t.label not in content.front]
        colour, symbol = SERIES[index % len(SERIES)], SYMBOLS[index % len(SYMBOLS)]
        name = "front" if budget is None else f"front, {budget:,} parameters"
        on_front.sort(key=lambda t: t.values[content.axes[1]] or 0)
        front = _points(on_front, kinds, name)
        # Between two trials of the front nothing better than the cheaper one has been found.
        front |= {"mode": "lines+markers", "line": {"color": colour, "shape": "hv"}}
        traces += [
            _points(others, kinds, "dominated", showlegend=index == 0)
            | {"marker": marker("@muted", symbol, 6, opacity=0.6)},
            front | {"marker": marker(colour, symbol, 9)},
        ]
    base = [t for t in content.trials if t.is_base]
    traces.append(_points(base, kinds, "dense base") | {"marker": marker("@base", "x", 10)})
    y, x = (_title(kind) for kind in kinds)
    return figure(traces, 400, showlegend=True, xaxis=axis(x), yaxis=axis(y))


def _points(rows: list[Trial], kinds: list[Objective], name: str, **options: Any) -> dict[str, Any]:
    y, x = ([_scaled(t.values[kind["name"]], kind) for t in rows] for kind in kinds)
    return dots(x, y, map(describe_trial, rows), name, **options)


def _scaled(value: float | None, kind: Objective) -> float | None:
    return None if value is None else value * UNITS.get(kind["unit"], ("", 1.0))[1]


def _title(kind: Objective) -> str:
    unit = UNITS.get(kind["unit"], (kind["unit"], 1.0))[0]
    return f"{kind['name']} ({unit})"
