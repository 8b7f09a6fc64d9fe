"""What pruning left of the layers of many trials, and how signals travel through them."""

import math
from typing import Any

from sculpt.quantities import MILESTONES
from sculpt.results.report.content import Content, Trial
from sculpt.results.report.details import Layer
from sculpt.results.report.drawing import (
    Figure,
    axis,
    cut,
    describe_trial,
    dots,
    escaped,
    figure,
    hover,
    log_axis,
    marker,
)
from sculpt.results.rows import rounded

MOST_ROWS = 40
LONGEST_LABEL = 28

STEP_NAMES = {"initial": "before pruning", "pruned": "pruned", "repaired": "repaired"}

SIGNAL_NAMES = {
    "jacobian_mean": "mean singular value of the Jacobian",
    "orthogonality_score": "orthogonality score, mean ‖WWᵀ−I‖",
    "effective_parameters": "effective parameters",
}


def layer_densities(content: Content) -> Figure | None:
    """Draw the density of every layer of the best trials as a heat map; × marks none kept."""
    read = {trial: found["layers"] for trial, found in content.details.items() if found["layers"]}
    rows = [t for t in content.trials if t.label in read][:MOST_ROWS]
    if not rows:
        return None
    layers = {t.label: read[t.label] for t in rows}
    columns = forward_order([[layer["name"] for layer in found] for found in layers.values()])
    densities, texts, collapsed = [], [], []
    for t in rows:
        found = {layer["name"]: layer for layer in layers[t.label]}
        label = escaped(t.name)
        densities.append([_log_density(found.get(name)) for name in columns])
        texts.append([_describe(t, found.get(name), name) for name in columns])
        collapsed += [
            (escaped(name), label, _describe(t, found[name], name))
            for name in columns
            if name in found and not found[name]["kept"]
        ]
    lowest = min((d for row in densities for d in row if d is not None), default=-1.0)
    ticks = list(range(math.floor(min(lowest, -1)), 1))
    heat = {
        "type": "heatmap",
        "x": [escaped(name) for name in columns],
        "y": [escaped(t.name) for t in rows],
        "z": densities,
        "text": texts,
        "hoverinfo": "text",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "zmin": ticks[0],
        "zmax": 0,
        "colorscale": "Cividis",
        "colorbar": {
            "tickvals": ticks,
            "ticktext": [f"{100 * 10.0**tick:g} %" for tick in ticks],
            "thickness": 12,
            "outlinewidth": 0,
        },
        "showlegend": False,
    }
    traces: list[dict[str, Any]] = [heat]
    if collapsed:
        x, y, hovers = zip(*collapsed, strict=True)
        marks = dots(x, y, hovers, "no weight kept: the layer collapsed")
        traces.append(marks | {"marker": marker("@bad", "x", 9), "showlegend": True})
    each = {"type": "category", "dtick": 1, "tickfont": {"size": 10}, "showgrid": False}
    labels = [cut(name, LONGEST_LABEL) for name in columns]
    names = {"tickvals": heat["x"], "ticktext": [escaped(label) for label in labels]}
    return figure(
        traces,
        90 + 6 * max(map(len, labels)) + 19 * len(rows),
        least=150 + 17 * len(columns),
        xaxis=axis("", tickangle=-90, range=[-0.5, len(columns) - 0.5], **each | names),
        yaxis=axis("", range=[len(rows) - 0.5, -0.5], **each),
    )


def forward_order(names: list[list[str]]) -> list[str]:
    """Return the union of layer names of networks of different depths, in forward order.

    What only some have stands after what stands before it there.
    """
    union: list[str] = []
    for listed in sorted(names, key=len, reverse=True):
        place = 0
        for name in listed:
            if name in union:
                place = union.index(name) + 1
            else:
                union.insert(place, name)
                place += 1
    return union


def _log_density(layer: Layer | None) -> float | None:
    return rounded(math.log10(layer["density"])) if layer and layer["kept"] else None


def _describe(trial: Trial, layer: Layer | None, name: str) -> str:
    if layer is None:
        return ""
    share = "none" if not layer["kept"] else f"{layer['kept']:,}"
    return hover(
        trial.name,
        trial.params,
        f"{name}: {share} of {layer['size']:,} kept ({100 * layer['density']:.3g} %)",
    )


def signal_figures(content: Content) -> dict[str, Figure]:
    """Draw each quantity at each step: a line for each of the best trials, the base a point."""
    shown = content.candidates[:MOST_ROWS]
    best = content.selected
    figures = {}
    for quantity, title in SIGNAL_NAMES.items():
        traces, values = [], []
        named: set[str] = set()
        # The best last, on top of the others; the others in one name.
        ordered = sorted(shown, key=lambda t: t.label == best)
        for t in ordered + ([content.base] if content.base else []):
            signal = {s: value for s in MILESTONES if (value := t.signal[s][quantity]) is not None}
            steps, known = list(signal), list(signal.values())
            if not known:
                continue
            values += known
            name, look = _look(t, best)
            texts = [
                describe_trial(t) + f"<br>{STEP_NAMES[s]}: {v:,.4g}"
                for s, v in zip(steps, known, strict=True)
            ]
            trace = dots([STEP_NAMES[s] for s in steps], known, texts, name)
            trace |= look | {"legendgroup": name, "showlegend": name not in named}
            named.add(name)
            traces.append(trace)
        if traces:
            figures[f"signal_{quantity}"] = figure(
                traces,
                330,
                showlegend=True,
                xaxis=axis(
                    "",
                    type="category",
                    categoryorder="array",
                    categoryarray=list(STEP_NAMES.values()),
                    range=[-0.35, 2.35],
                    ticklabelstandoff=6,  # of the lowest label of the other axis
                ),
                yaxis=log_axis("", values),
                title={"text": escaped(title), "font": {"size": 13}, "x": 0, "xanchor": "left"},
                margin={"l": 8, "r": 12, "t": 64, "b": 8},
            )
    return figures


def _look(trial: Trial, best: int | str | None) -> tuple[str, dict[str, Any]]:
    """Return what a trial is called in the legend, and how it is drawn."""
    if trial.is_base:
        return "base", {"mode": "markers", "marker": marker("@base", "square", 11)}
    if trial.label == best:
        line = {"color": "@s1", "width": 3}
        return "best", {"mode": "lines+markers", "line": line, "marker": marker("@s1", size=9)}
    line = {"color": "@muted/0.45", "width": 1}
    look = {"mode": "lines+markers", "line": line, "marker": marker("@muted/0.6", size=4)}
    return "others", look
