"""Learning curves of the best trials, and proxies against the error."""

from typing import Any

from sculpt.results.report.content import Content, Trial
from sculpt.results.report.details import Curve
from sculpt.results.report.drawing import (
    DASHES,
    SERIES,
    Figure,
    axis,
    dots,
    escaped,
    figure,
    hover,
    log_axis,
    marker,
    percents,
    thinned,
)
from sculpt.results.tables import configuration
from sculpt.units import signed

MOST_CURVES = 5
"""Candidates; more lines cannot be told apart."""

MOST_POINTS = 800


def learning_curves(content: Content) -> Figure | None:
    """Draw the validation error per epoch of the base and the best, with a band of ± 1 std."""
    known = [(t, curve) for t in content.trials if (curve := _curve(content, t))]
    best = [(t, curve) for t, curve in known if not t.is_base][:MOST_CURVES]
    base = [(t, curve) for t, curve in known if t.is_base]
    traces = _stopped(content)
    for index, (t, curve) in enumerate([*best, *base]):
        colour = "@base" if t.is_base else SERIES[index % len(SERIES)]
        means = percents(curve["mean"])
        if curve["std"]:
            traces.append(_spread_band(curve, curve["std"], colour, str(t.label)))
        texts = [
            hover(t.name, t.params, f"epoch {epoch}: {mean:.2f} %")
            for epoch, mean in zip(curve["epochs"], means, strict=True)
            if mean is not None
        ]
        line = {"color": colour, "dash": "dash" if t.is_base else DASHES[index]}
        trace = dots(curve["epochs"], means, texts, t.name)
        trace |= {"mode": "lines", "line": line | {"width": 2.2}, "legendgroup": str(t.label)}
        traces.append(trace)
    if not traces:
        return None
    last = max(epoch for trace in traces for epoch in trace["x"])
    return figure(
        traces,
        400,
        showlegend=True,
        xaxis=axis("epoch", **({"dtick": 1} if last <= 12 else {})),
        yaxis=axis("validation error (%, log scale)", type="log", nticks=6, minexponent=9),
    )


def _curve(content: Content, trial: Trial) -> Curve | None:
    found = content.details.get(trial.label)
    return found and found["curve"]


def _spread_band(curve: Curve, std: list[float], colour: str, group: str) -> dict[str, Any]:
    both = list(zip(curve["mean"], std, strict=True))
    upper = percents(mean + std for mean, std in both)
    # On a log scale an error of zero has no place; a tenth of the mean is the bottom of the figure.
    lower = percents(max(mean - std, mean / 10) for mean, std in both)
    epochs = curve["epochs"]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": epochs + epochs[::-1],
        "y": upper + lower[::-1],
        "fill": "toself",
        "fillcolor": f"{colour}/0.13",
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": group,
    }


def _stopped(content: Content) -> list[dict[str, Any]]:
    """Return the looks that early stopping took at those that it stopped: first seeds alone."""
    found = [
        (epoch, 100 * error, row)
        for row in content.unfinished
        for epoch, error in content.rungs.get(row["trial"], [])
    ]
    if not found:
        return []
    epochs, errors, stopped = zip(*thinned(found, MOST_POINTS), strict=True)
    texts = [
        hover(f"trial {row['trial']}, stopped", configuration(row["params"]), row["error"])
        for row in stopped
    ]
    trace = dots(epochs, errors, texts, "stopped early (first seed)")
    return [trace | {"marker": marker("@muted", "x-thin-open", 7, line={"width": 1.2})}]


def proxy_figures(content: Content) -> dict[str, Figure]:
    """Draw each of the strongest proxies against the validation error."""
    figures = {}
    for index, (row, values_of) in enumerate(content.proxies):
        known = [
            (trial, value, 100 * trial.row["val_error"]["mean"])
            for trial in content.candidates
            if (value := values_of[trial.label]) is not None
        ]
        if not known:
            continue
        trials, values, errors = zip(*thinned(known, MOST_POINTS), strict=True)
        texts = [hover(trial.name, trial.params) for trial in trials]
        trace = dots(values, errors, texts, "candidates")
        trace |= {"marker": marker("@s1", size=7, opacity=0.75), "showlegend": False}
        said = f"ρ {signed(row['rho'] or 0)}, p {row['p']:.2g}, n {row['n']}"
        figures[f"proxy_{index}"] = figure(
            [trace],
            280,
            xaxis=log_axis(_name(row["proxy"]), values),
            yaxis=axis("validation error (%)"),
            title={"text": escaped(said), "font": {"size": 13}, "x": 0, "xanchor": "left"},
            margin={"l": 8, "r": 12, "t": 36, "b": 8},
        )
    return figures


def _name(proxy: str) -> str:
    # What is ranked is how far it is from isometry, which is at 1.
    return "|ln jacobian_mean|" if proxy == "jacobian_mean" else proxy
