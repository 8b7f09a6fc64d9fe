"""Candidates beside the dense base: errors over sparsity and size, and the Pareto front."""

from typing import Any, Literal

import altair as alt

from sculpt import units
from sculpt.presentation.content import Content, Trial, front_key
from sculpt.presentation.figures.drawing import (
    BASE,
    LOOKS,
    OPPONENT,
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
    points,
    scaled,
    spans_decades,
    thinned,
)
from sculpt.results.tables.ranking import times_as_much

MOST_POINTS = 1500
MOST_BARS = 60
"""Candidates with error bars, the best ones: more of them hide each other."""

NAMES = {"val": "validation", "test": "test"}


def error_against_sparsity(content: Content) -> Figure | None:
    """Draw candidates with their spread, the base as a band, opponents, and published errors."""
    kind, metric = content.error, content.metric
    candidates = [(t, error) for t in content.candidates if (error := t.error(kind))]
    if not candidates:
        return None
    rows = [
        {
            "series": series_of(t.group, "candidates"),
            "x": 100 * t.row["sparsity"],
            **_scaled(error, metric),
            "text": describe_trial(t),
            "bars": place < MOST_BARS,
        }
        for place, (t, error) in enumerate(thinned(candidates, MOST_POINTS, MOST_BARS))
    ]
    looks = looks_of(series_of(group, "candidates") for group in content.groups)
    published = _published(content)
    looks |= {row["series"]: PUBLISHED for row in published}
    dense, drawn, elsewhere = map(chart, ("base", "trials", "published"))
    band: list[Row] = []
    layers = []
    if base := content.base and content.base.error(kind):
        band = [{"series": f"dense base {metric.spread(base)}", **_scaled(base, metric)}]
        looks[band[0]["series"]] = BASE
    opponents: list[Row] = [
        {
            "series": OPPONENTS,
            "x": 100 * t.row["sparsity"],
            **_scaled(error, metric),
            "text": describe_trial(t),
        }
        for t in content.opponents
        if (error := t.error(kind))
    ]
    looks |= {OPPONENTS: OPPONENT} if opponents else {}
    channels = points(looks)
    if band:
        layers += [
            dense.mark_rect(opacity=0.16, color=colour("base")).encode(y="low:Q", y2="high:Q"),
            dense.mark_rule(strokeDash=list(BASE.dash)).encode(y="y:Q", color=channels["color"]),
        ]
    if any(row["bars"] and row["high"] > row["low"] for row in rows):  # Vega warns of no rows
        layers.append(
            drawn.transform_filter("datum.bars && datum.high > datum.low")
            .mark_rule()
            .encode(y="low:Q", y2="high:Q", x="x:Q", color=channels["color"])
        )
    layers += [
        drawn.mark_point(filled=True)
        .add_params(ZOOM)
        .encode(
            y=number_axis(alt.Y, "y", f"{NAMES[kind]} {metric.name}{metric.unit}"),
            x=number_axis(alt.X, "x", "sparsity (%)"),
            tooltip="text:N",
            size=alt.SizeValue(24, condition={"test": "datum.bars", "value": 70}),
            opacity=alt.OpacityValue(0.5, condition={"test": "datum.bars", "value": 1}),
            **channels,
        ),
    ]
    if published:
        layers.append(
            elsewhere.mark_point(filled=True, size=90).encode(
                y="y:Q", x="x:Q", tooltip="text:N", **channels
            )
        )
    data = {"base": band, "trials": rows, "published": published}
    if opponents:
        data["opponents"] = opponents
        layers.append(
            chart("opponents")
            .mark_point(size=110, strokeWidth=2)
            .encode(y="y:Q", x="x:Q", tooltip="text:N", **channels)
        )
    return figure(data, *layers, height=420)


def _scaled(error: units.Error, metric: units.Metric) -> Row:
    mean, std = error["mean"], error["std"] or 0
    values = scaled([mean, mean - std, mean + std], metric)
    return dict(zip(("y", "low", "high"), values, strict=True))


def _published(content: Content) -> list[Row]:
    rows: list[Row] = []
    kinds: tuple[Literal["test", "val"], ...] = ("test", "val")
    for kind in kinds:
        # Those of the other kind stand beside them only where there are none of this one.
        if kind != content.error and rows:
            continue
        for point in content.published.points if content.published else []:
            if (error := point[kind]) is not None:
                whose = "base" if point["trial"] == "base" else f"as trial {point['trial']}"
                x, y = scaled([point["sparsity"], error], units.ERROR)
                name = f"{NAMES[kind]} error"
                text = hover(f"published, {whose}", f"{name} {units.percent(error)}")
                rows.append({"series": f"published ({name})", "x": x, "y": y, "text": text})
    return rows


MOST_DOMINATED = 3000
"""More points than that only hide each other."""

UNITS = {"fraction": "%", "macs": "MACs"}

STEPS = {"minimize": "step-after", "maximize": "step-before"}
"""Between two trials of the front nothing better than the cheaper one has been found."""

ON_FRONT = "indexof(front, datum.trial) >= 0"


OPPONENTS = "opponents"


def describe_trial(trial: Trial) -> str:
    """Return the text beside the pointer at a trial."""
    return hover(trial.name, trial.params, *map(" ".join, trial.facts.items()))


def pareto_front(content: Content) -> Figure | None:
    """Draw finished trials over the two objectives of the study, each budget's front as steps.

    The page draws other pairs by the same figure: it replaces the parameters `x` and `y` (places
    of objectives) and `front` (trials), and the axes. `selected` is the trial that is shown below.
    """
    if len(content.axes) < 2 or not content.trials:
        return None
    names = [objective["name"] for objective in content.objectives]
    upward, across = map(names.index, content.axes)
    axes = objective_axes(content)
    looks = looks_of(map(series_of, content.groups)) | {"dense base": BASE}
    looks |= {OPPONENTS: OPPONENT} if content.opponents else {}
    channels = points(looks)
    # By another field and with another domain: those of one have one legend, which shows points.
    fronts_alone = {n: look for n, look in looks.items() if look not in (BASE, OPPONENT)}
    dash = alt.StrokeDash(
        "budget:N",
        scale=alt.Scale(
            domain=list(fronts_alone), range=[list(look.dash) for look in fronts_alone.values()]
        ),
        legend=None,
    )
    data: dict[str, list[Row]] = {"trials": []}
    if content.opponents:
        data["opponents"] = []
    for trial in content.trials:
        is_opponent = trial.row["role"] == "opponent"
        data["opponents" if is_opponent else "trials"].append(
            {
                "trial": trial.label,
                "series": OPPONENTS if is_opponent else series_of(trial.group),
                "values": [trial.values[name] for name in names],
                "text": describe_trial(trial),
            }
        )
    known, opponents = (
        chart(name)
        .transform_calculate(x="datum.values[x]", y="datum.values[y]", budget="datum.series")
        .transform_filter("isValid(datum.x) && isValid(datum.y)")
        for name in ("trials", "opponents")
    )
    best = known.transform_filter(ON_FRONT)
    others = (
        known.transform_filter(f"!({ON_FRONT}) && datum.trial != 'base'")
        .transform_window(row="row_number()")
        .transform_joinaggregate(all="count()")
        .transform_calculate(shown=f"{MOST_DOMINATED} / datum.all")
        .transform_filter("floor(datum.row * datum.shown) > floor((datum.row - 1) * datum.shown)")
    )
    base = known.transform_filter("datum.trial == 'base'")
    beside = [opponents.mark_point(size=110, strokeWidth=2).encode(**channels)]
    return figure(
        data,
        *(beside if content.opponents else []),
        others.mark_point(filled=True, size=45, opacity=0.5).encode(**channels),
        best.mark_line(interpolate={"expr": "step"}).encode(
            color=channels["color"], strokeDash=dash
        ),
        best.mark_point(filled=True, size=90).add_params(ZOOM).encode(x="x:Q", y="y:Q", **channels),
        base.transform_calculate(series="'dense base'")
        .mark_point(size=260, strokeWidth=2.5)
        .encode(**channels),
        known.transform_filter("datum.trial == selected").mark_point(
            size=320, strokeWidth=2, color=colour("ink")
        ),
        height=460,
        x=alt.X("x:Q", **axes[across]),
        y=alt.Y("y:Q", **axes[upward]),
        tooltip="text:N",
        params={
            "x": across,
            "y": upward,
            "front": content.fronts[front_key(across, upward)],
            "step": STEPS[content.objectives[across]["direction"]],
            "selected": None,
        },
    )


def objective_axes(content: Content) -> list[dict[str, Any]]:
    """Return title, scale and labels of each measured objective's axis."""
    axes: list[dict[str, Any]] = []
    for objective in content.objectives:
        unit = UNITS.get(objective["unit"], objective["unit"])
        better = "" if objective["direction"] == "minimize" else "; more is better"
        values = [trial.values[objective["name"]] for trial in content.trials]
        log = spans_decades(values)
        large = max((abs(value) for value in values if value), default=0) >= 1000
        axes.append(
            {
                "title": f"{objective['name']} ({unit}{better})",
                "scale": {"type": "log"} if log else {"type": "linear", "zero": False},
                "axis": {"format": ".3~%" if unit == "%" else ".3~s" if large else ".3~g"},
            }
        )
    return axes


def series_of(group: int | None, alone: str = "front") -> str:
    """Return the name of a budget's series; of the only one where all compete."""
    return alone if group is None else f"{units.count(group)} parameters"


DENSE, SPARSE = "dense networks", "candidates"
CONFIRMED = "candidates again, on fresh seeds"


def error_against_size(content: Content) -> Figure | None:
    """Draw the dense frontier over the parameters, with its spread, and candidates beside it.

    A line leads from the best candidate to the dense network of its error, if that is known.
    Confirmed candidates are drawn again, with their errors on fresh seeds.
    """
    found, metric = content.document.get("frontier"), content.metric
    if found is None or not content.candidates:
        return None
    dense: list[Row] = [
        {
            "series": DENSE,
            "best": network["on_frontier"],
            "x": network["kept_parameters"],
            **_scaled(network["val_error"], metric),
            "text": hover(
                network["trial"],
                f"{units.count(network['kept_parameters'])} parameters",
                metric.spread(network["val_error"]),
            ),
        }
        for network in found["networks"]
    ]
    sparse: list[Row] = [
        {
            "series": SPARSE,
            "x": trial.row["kept_parameters"],
            **_scaled(trial.row["val_error"], metric),
            "text": describe_trial(trial),
            "bars": place < MOST_BARS,
        }
        for place, trial in enumerate(thinned(content.candidates, MOST_POINTS, MOST_BARS))
    ]
    errors = {trial.label: trial.row["val_error"] for trial in content.candidates}
    worth: list[Row] = [
        {
            "x": row["own"],
            "to": row["dense"],
            "middle": (row["own"] * row["dense"]) ** 0.5,
            "y": _scaled(errors[row["trial"]], metric)["y"],
            "text": f"{times_as_much(row).partition(' [')[0]} times the parameters",
        }
        for row in found["worth"]
        if row["cost"] == "kept_parameters"
    ][:1]  # the best candidate's
    confirmation = content.document["confirmation"]
    confirmed: list[Row] = [
        {
            "series": CONFIRMED,
            "x": row["kept_parameters"],
            **_scaled(error, metric),
            "text": hover(f"trial {row['trial']}, on fresh seeds", metric.spread(error)),
        }
        for row in (confirmation["rows"] if confirmation else [])
        if row["arm"] == "sculpted" and (error := row["val_error"])
    ]
    looks = {DENSE: BASE, SPARSE: LOOKS[0]} | ({CONFIRMED: LOOKS[1]} if confirmed else {})
    channels = points(looks)
    line, networks, trials, to_dense = map(chart, ("frontier", "dense", "trials", "worth"))
    sizes = [row["x"] for row in dense + sparse]
    ticks = sorted(set(map(float, sizes)))
    axis = alt.Axis(values=ticks, format=".3~s", labelOverlap=True)
    to_dense_layers = [
        to_dense.mark_rule(color=colour("ink"), strokeDash=[2, 2]).encode(y="y:Q", x2="to:Q"),
        to_dense.mark_text(dy=-8).encode(y="y:Q", x="middle:Q", text="text:N"),
    ]
    layers = [
        line.mark_area(opacity=0.16, color=colour("base")).encode(y="low:Q", y2="high:Q"),
        line.mark_line(strokeDash=list(BASE.dash)).encode(y="y:Q", color=channels["color"]),
        networks.mark_point(filled=True, size=90)
        .add_params(ZOOM)
        .encode(
            y=number_axis(alt.Y, "y", f"{NAMES['val']} {metric.name}{metric.unit}"),
            tooltip="text:N",
            **channels,
        ),
        *(to_dense_layers if worth else []),
        trials.transform_filter("datum.bars && datum.high > datum.low")
        .mark_rule()
        .encode(y="low:Q", y2="high:Q", color=channels["color"]),
        trials.mark_point(filled=True, size=70).encode(y="y:Q", tooltip="text:N", **channels),
    ]
    if confirmed:
        again = chart("confirmed").encode(y="y:Q", tooltip="text:N", **channels)
        layers += [
            again.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q", color=channels["color"]),
            again.mark_point(filled=True, size=140),
        ]
    x = alt.X(
        "x:Q", title="parameters", scale=alt.Scale(type="log", nice=False, padding=30), axis=axis
    )
    lowest = [row for row in dense if row["best"]]
    data = {"frontier": lowest, "dense": dense, "trials": sparse, "worth": worth}
    data |= {"confirmed": confirmed} if confirmed else {}
    return figure(data, *layers, height=420, x=x)
