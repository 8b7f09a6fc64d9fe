"""The Pareto front of two objectives, each budget by itself."""

from typing import Any

import altair as alt

from sculpt.presentation.content import Content, Trial, front_key
from sculpt.presentation.figures.drawing import (
    BASE,
    ZOOM,
    Figure,
    chart,
    colour,
    figure,
    hover,
    looks_of,
    points,
    spans_decades,
)
from sculpt.units import count

MOST_DOMINATED = 3000
"""More points than that only hide each other."""

UNITS = {"fraction": "%", "macs": "MACs"}

STEPS = {"minimize": "step-after", "maximize": "step-before"}
"""Between two trials of the front nothing better than the cheaper one has been found."""

ON_FRONT = "indexof(front, datum.trial) >= 0"


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
    channels = points(looks)
    # By another field and with another domain: those of one have one legend, which shows points.
    fronts_alone = {name: look for name, look in looks.items() if look is not BASE}
    dash = alt.StrokeDash(
        "budget:N",
        scale=alt.Scale(
            domain=list(fronts_alone), range=[list(look.dash) for look in fronts_alone.values()]
        ),
        legend=None,
    )
    rows = [
        {
            "trial": trial.label,
            "series": series_of(trial.group),
            "values": [trial.values[name] for name in names],
            "text": describe_trial(trial),
        }
        for trial in content.trials
    ]
    known = (
        chart("trials")
        .transform_calculate(x="datum.values[x]", y="datum.values[y]", budget="datum.series")
        .transform_filter("isValid(datum.x) && isValid(datum.y)")
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
    return figure(
        {"trials": rows},
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
        tooltip=alt.Tooltip("text:N"),
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


def series_of(group: int | None) -> str:
    """Return the name of a budget's front."""
    return "front" if group is None else f"{count(group)} parameters"
