"""Learning curves of the best trials, and proxies against the error."""

from dataclasses import replace

import altair as alt

from sculpt.presentation.content import Content
from sculpt.presentation.figures.drawing import (
    BASE,
    LOOKS,
    ZOOM,
    Figure,
    Look,
    Row,
    chart,
    figure,
    hover,
    number_axis,
    percents,
    scaled_axis,
    series,
    thinned,
)
from sculpt.presentation.front_figure import describe_trial
from sculpt.results.tables import configuration
from sculpt.units import percent, signed

MOST_CURVES = 5
"""Candidates; more lines cannot be told apart."""

MOST_POINTS = 800

STOPPED = "stopped early (first seed)"


def learning_curves(content: Content) -> Figure | None:
    """Draw the validation error per epoch of the base and the best, with a band of ± 1 std."""
    known = [
        (trial, curve)
        for trial in content.trials
        if (found := content.details.get(trial.label)) and (curve := found["curve"])
    ]
    best = [(trial, curve) for trial, curve in known if not trial.is_base][:MOST_CURVES]
    best += [(trial, curve) for trial, curve in known if trial.is_base]
    rows: list[Row] = []
    for trial, curve in best:
        stds = curve["std"] or [0.0] * len(curve["mean"])
        for epoch, mean, std in zip(curve["epochs"], curve["mean"], stds, strict=True):
            if mean <= 0:
                continue  # it has no place on a logarithmic axis
            # Nor has a mean less its deviation, if that is larger.
            y, low, high = percents([mean, max(mean - std, mean / 10), mean + std])
            text = hover(trial.name, trial.params, f"epoch {epoch}: {percent(mean)}")
            row = {"series": trial.name, "x": epoch, "y": y, "low": low, "high": high, "text": text}
            rows.append(row)
    stopped = _stopped(content)
    if not rows and not stopped:
        return None
    looks = {
        trial.name: replace(BASE if trial.is_base else LOOKS[place], shape="stroke")
        for place, (trial, _) in enumerate(best)
    }
    looks |= {STOPPED: Look("muted", "cross")} if stopped else {}
    # Lines alone have no shape that their legend could show.
    legend: Row = (
        {} if stopped else {"symbolType": "stroke", "symbolSize": 300, "symbolStrokeWidth": 2}
    )
    drawn, channels = chart("epochs"), series(looks, **legend)
    shape = channels.pop("shape")
    epochs = sorted({row["x"] for row in rows + stopped})
    ticks: Row = {"values": epochs} if len(epochs) <= 12 else {}
    layers = []
    if rows:
        layers += [
            drawn.mark_area(opacity=0.13).encode(
                y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), color=channels["color"]
            ),
            drawn.mark_line().encode(**channels),
            # What is pointed at.
            drawn.mark_point(filled=True, opacity=0, size=80)
            .add_params(ZOOM)
            .encode(x="x:Q", y="y:Q", tooltip=alt.Tooltip("text:N"), color=channels["color"]),
        ]
    if stopped:
        marks = chart("stopped").mark_point(filled=True, size=36)
        layers.append(
            marks.encode(tooltip=alt.Tooltip("text:N"), color=channels["color"], shape=shape)
        )
    return figure(
        {"epochs": rows, "stopped": stopped},
        *layers,
        height=400,
        x=number_axis(alt.X, "x", "epoch", axis=alt.Axis(format="d", **ticks)),
        y=alt.Y(
            "y:Q", title="validation error (%, log scale)", scale=alt.Scale(type="log", nice=False)
        ),
    )


def _stopped(content: Content) -> list[Row]:
    """Return the looks that early stopping took at those that it stopped: first seeds alone."""
    found = [
        (epoch, 100 * error, row)
        for row in content.unfinished
        for epoch, error in content.rungs.get(row["trial"], [])
    ]
    return [
        {
            "series": STOPPED,
            "x": epoch,
            "y": error,
            "text": hover(
                f"trial {row['trial']}, stopped", configuration(row["params"]), row["error"]
            ),
        }
        for epoch, error, row in thinned(found, MOST_POINTS)
    ]


def proxy_figures(content: Content) -> dict[str, Figure]:
    """Draw each of the strongest proxies against the validation error."""
    figures = {}
    for place, (row, values_of) in enumerate(content.proxies):
        known = [
            {
                "x": value,
                "y": 100 * trial.row["val_error"]["mean"],
                "text": describe_trial(trial),
            }
            for trial in content.candidates
            if (value := values_of[trial.label]) is not None
        ]
        if not known:
            continue
        # What is ranked is how far it is from isometry, which is at 1.
        name = "|ln jacobian_mean|" if row["proxy"] == "jacobian_mean" else row["proxy"]
        rows = thinned(known, MOST_POINTS)
        figures[f"proxy_{place}"] = figure(
            {"trials": rows},
            chart("trials")
            .mark_point(filled=True, size=50, opacity=0.75, color={"expr": "s1"})
            .add_params(ZOOM)
            .encode(x="x:Q", y="y:Q"),
            height=280,
            title=f"ρ {signed(row['rho'] or 0)}, p {row['p']:.2g}, n {row['n']}",
            x=scaled_axis(alt.X, "x", name, (row["x"] for row in rows)),
            y=number_axis(alt.Y, "y", "validation error (%)"),
            tooltip=alt.Tooltip("text:N"),
        )
    return figures
