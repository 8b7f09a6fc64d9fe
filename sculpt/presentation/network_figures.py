"""What happened in networks: learning curves, what foretold the error, layers and signals."""

import math
from dataclasses import replace

import altair as alt

from sculpt import units
from sculpt.presentation.candidate_figures import describe_trial
from sculpt.presentation.content import Content, Trial
from sculpt.presentation.details import Layer
from sculpt.presentation.figures.drawing import (
    BASE,
    LONGEST_LABEL,
    LOOKS,
    ZOOM,
    Figure,
    Look,
    Row,
    chart,
    colour,
    cut_labels,
    figure,
    hover,
    number_axis,
    points,
    scaled,
    scaled_axis,
    series,
    thinned,
)
from sculpt.presentation.figures.pruning import ROW, layer_axis, layer_bars
from sculpt.quantities import MILESTONES
from sculpt.results.tables import configuration

MOST_CURVES = 5
"""Candidates; more lines cannot be told apart."""

MOST_POINTS = 800

STOPPED = "stopped early (first seed)"


def learning_curves(content: Content) -> Figure | None:
    """Draw the validation error per epoch of the base and the best, with a band of ± 1 std."""
    metric = content.metric
    known = [
        (trial, curve)
        for trial in content.trials
        if (found := content.details.get(trial.label)) and (curve := found["curve"])
    ]
    best = [(trial, curve) for trial, curve in known if trial.is_candidate][:MOST_CURVES]
    best += [(trial, curve) for trial, curve in known if trial.is_base]
    rows: list[Row] = []
    for trial, curve in best:
        stds = curve["std"] or [0.0] * len(curve["mean"])
        for epoch, mean, std in zip(curve["epochs"], curve["mean"], stds, strict=True):
            if mean <= 0 and metric.share:
                continue  # it has no place on a logarithmic axis
            # Nor has a mean less its deviation, if that is larger.
            least = max(mean - std, mean / 10) if metric.share else mean - std
            y, low, high = scaled([mean, least, mean + std], metric)
            text = hover(trial.name, trial.params, f"epoch {epoch}: {metric.value(mean)}")
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
            drawn.mark_area(opacity=0.13).encode(y="low:Q", y2="high:Q", color=channels["color"]),
            drawn.mark_line().encode(**channels),
            # What is pointed at.
            drawn.mark_point(filled=True, opacity=0, size=80)
            .add_params(ZOOM)
            .encode(x="x:Q", y="y:Q", tooltip="text:N", color=channels["color"]),
        ]
    if stopped:
        marks = chart("stopped").mark_point(filled=True, size=36)
        layers.append(marks.encode(tooltip="text:N", color=channels["color"], shape=shape))
    return figure(
        {"epochs": rows, "stopped": stopped},
        *layers,
        height=400,
        x=number_axis(alt.X, "x", "epoch", axis=alt.Axis(format="d", **ticks)),
        y=alt.Y(
            "y:Q",
            title=f"validation {metric.name} (%, log scale)",
            scale=alt.Scale(type="log", nice=False),
        )
        if metric.share
        else number_axis(alt.Y, "y", f"validation {metric.name}"),
    )


def _stopped(content: Content) -> list[Row]:
    """Return the looks that early stopping took at those that it stopped: first seeds alone."""
    found = [
        (epoch, content.metric.factor * error, row)
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
                "y": content.metric.factor * trial.row["val_error"]["mean"],
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
            title=f"ρ {units.signed(row['rho'] or 0)}, p {row['p']:.2g}, n {row['n']}",
            x=scaled_axis(alt.X, "x", name, (row["x"] for row in rows)),
            y=number_axis(alt.Y, "y", f"validation {content.metric.name}{content.metric.unit}"),
            tooltip="text:N",
        )
    return figures


MOST_ROWS = 40

STEP_NAMES = {"initial": "before pruning", "pruned": "pruned", "repaired": "repaired"}

SIGNAL_NAMES = {
    "jacobian_mean": "mean singular value of the Jacobian",
    "orthogonality_score": "orthogonality score, mean ‖WWᵀ−I‖",
    "effective_parameters": "effective parameters",
}

COLLAPSED = "no weight kept: the layer collapsed"
CROSS = "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z"


def layer_densities(content: Content) -> Figure | None:
    """Draw the density of every layer of the best trials as a heat map; × marks none kept."""
    read = {trial: found["layers"] for trial, found in content.details.items() if found["layers"]}
    trials = [trial for trial in content.trials if trial.label in read][:MOST_ROWS]
    if not trials:
        return None
    names = forward_order([[layer["name"] for layer in read[t.label]] for t in trials])
    rows = [_describe(trial, layer) for trial in trials for layer in read[trial.label]]
    lowest = min((row["density"] for row in rows if row["density"]), default=0.1)
    powers = range(math.floor(math.log10(min(lowest, 0.1))), 1)
    heat = alt.Color(
        "density:Q",
        scale=alt.Scale(type="log", scheme="cividis", domain=[10.0 ** powers[0], 1]),
        legend=alt.Legend(
            orient="right", format="~%", values=[10.0**power for power in powers], tickCount=9
        ),
    )
    mark = alt.Shape("series:N", scale=alt.Scale(domain=[COLLAPSED], range=[CROSS]))
    drawn = chart("layers")
    columns = alt.Axis(labelAngle=-90, labelExpr=cut_labels(), labelFontSize=10, grid=False)
    layers = [drawn.transform_filter("datum.density > 0").mark_rect(stroke=None).encode(color=heat)]
    if any(not row["density"] for row in rows):
        collapsed = drawn.transform_filter("datum.density == 0").mark_point(
            filled=True, size=70, color=colour("bad")
        )
        layers.append(collapsed.encode(shape=mark))
    return figure(
        {"layers": rows},
        *layers,
        height=90 + 6 * min(LONGEST_LABEL, max(map(len, names))) + 19 * len(trials),
        least=150 + 17 * len(names),
        x=alt.X("layer:N", title=None, scale=alt.Scale(domain=names), axis=columns),
        y=alt.Y(
            "trial:N",
            title=None,
            scale=alt.Scale(domain=[trial.name for trial in trials]),
            axis=alt.Axis(labelFontSize=10, grid=False),
        ),
        tooltip="text:N",
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


def _describe(trial: Trial, layer: Layer) -> Row:
    kept = units.count(layer["kept"]) if layer["kept"] else "none"
    found = f"{kept} of {units.count(layer['size'])} kept ({100 * layer['density']:.3g} %)"
    return {
        "trial": trial.name,
        "layer": layer["name"],
        "density": layer["density"],
        "series": COLLAPSED,
        "text": hover(trial.name, trial.params, f"{layer['name']}: {found}"),
    }


def signal_figures(content: Content) -> dict[str, Figure]:
    """Draw each quantity at each step: a line for each of the best trials, the base a point."""
    best = content.selected
    shown = content.candidates[:MOST_ROWS] + ([content.base] if content.base else [])
    looks = {"best": Look("s1"), "others": Look("muted", "circle"), "base": BASE}
    figures = {}
    for quantity, title in SIGNAL_NAMES.items():
        rows: list[Row] = [
            {
                "x": STEP_NAMES[step],
                "y": value,
                "trial": trial.name,
                "series": "base" if trial.is_base else "best" if trial.label == best else "others",
                "text": f"{describe_trial(trial)}\n{STEP_NAMES[step]}: {value:,.4g}",
            }
            for trial in shown
            for step in MILESTONES
            if (value := trial.signal[step][quantity]) is not None
        ]
        if not rows:
            continue
        named = {row["series"] for row in rows}
        channels = points({name: look for name, look in looks.items() if name in named})
        others = [row for row in rows if row["series"] == "others"]
        chosen = [row for row in rows if row["series"] != "others"]
        line = {"color": channels["color"], "detail": "trial:N"}
        steps = alt.Scale(domain=list(STEP_NAMES.values()))
        figures[f"signal_{quantity}"] = figure(
            {"others": others, "chosen": chosen},
            chart("others").mark_line(size=1, opacity=0.45).encode(**line),
            chart("others").mark_point(filled=True, size=20, opacity=0.6).encode(**channels),
            chart("chosen")
            .transform_filter("datum.series == 'best'")
            .mark_line(size=3)
            .encode(**line),
            chart("chosen").mark_point(filled=True, size=90).encode(**channels),
            height=330,
            title=title,
            x=alt.X("x:N", title=None, scale=steps, axis=alt.Axis(labelAngle=0, grid=False)),
            y=scaled_axis(alt.Y, "y", None, (row["y"] for row in rows)),
            tooltip="text:N",
        )
    return figures


def panel_figures() -> dict[str, Figure]:
    """Return the figures of one trial's layers; the page multiplies their height by the rows.

    Their rows are named `layers`: with `layer`, `x`, `kept` and `size`, or `layer`, `series`
    and `y`.
    """
    steps = {"pruned": Look("s2", "diamond"), "after the repair": Look("s1")}
    isometry = alt.X("y:Q", title="‖WWᵀ−I‖, 0 is isometry")
    return {
        "density": figure({}, layer_bars("kept of each layer (%)"), height=ROW, tooltip="text:N"),
        "isometry": figure(
            {},
            chart("layers").mark_point(filled=True, size=70).encode(**points(steps)),
            height=ROW,
            x=isometry,
            y=layer_axis(),
            tooltip="y:Q",
        ),
    }
