"""Figures over the sampled parameters: their importance, and parallel coordinates."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import altair as alt
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from sculpt.config import Params, Space, Study
from sculpt.presentation.content import Content
from sculpt.presentation.figures.drawing import (
    Figure,
    Row,
    chart,
    colour,
    cut_labels,
    figure,
    hover,
    thinned,
)
from sculpt.registry import OBJECTIVES
from sculpt.search.sampling.space import distribution
from sculpt.storage.optuna_names import experimental_accepted

FEWEST = 4
"""Finished candidates from which on a figure over parameters says anything."""

MOST_LINES = 200
"""Trials in parallel coordinates, the best ones."""

MOST_JUDGED = 1000
"""Trials that importances are estimated from, evenly chosen from the best to the worst."""

LONGEST_LABEL = 22

Sampled = tuple[float, Params, str]
"""A finished candidate: its objective, its parameters, and its name."""


@dataclass(frozen=True)
class ParameterFigure:
    """A figure, or why there is none."""

    name: str
    title: str
    figure: Figure | None
    note: str


def parameter_figures(content: Content, config: Study) -> list[ParameterFigure]:
    """Return importances and parallel coordinates over the study's first objective."""
    objective = config.search.objectives[0]
    lower = OBJECTIVES.get(objective).direction == "minimize"
    rows = [
        (value, trial.row["params"], trial.name)
        for trial in content.candidates
        if (value := trial.values.get(objective)) is not None
    ]
    rows.sort(key=lambda row: row[0] if lower else -row[0])
    importances, why = None, _problem(rows)
    parallel = None if why else _parallel(rows[:MOST_LINES], config.space, objective)
    because = why
    if not why:
        try:
            importances = _importances(rows, config.space, lower)
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            because = f"Left out: Optuna cannot judge it ({error})."
    whom = "each finished candidate"
    if len(rows) > MOST_LINES:
        whom = f"each of the {MOST_LINES} best finished candidates"
    return [
        ParameterFigure(
            "importances",
            "Parameter importance",
            importances,
            because
            or f"How much each parameter has to do with a good {objective} (PED-ANOVA by Optuna, "
            f"over {min(len(rows), MOST_JUDGED):,} finished candidates); a tendency, and no test.",
        ),
        ParameterFigure(
            "parallel",
            "Parallel coordinates",
            parallel,
            why or f"One line for {whom}; the stronger its colour, the better its {objective}.",
        ),
    ]


def _problem(rows: list[Sampled]) -> str:
    """Return the reason why nothing can be drawn; empty if something can."""
    if len(rows) < FEWEST:
        return f"Left out: it takes {FEWEST} finished candidates, and there are {len(rows)}."
    if len({value for value, *_ in rows}) < 2:
        return "Left out: all finished candidates have the same value of the first objective."
    if not any(len({str(p.get(key)) for _, p, _ in rows}) > 1 for key in _parameters(rows)):
        return "Left out: no parameter differs between the finished candidates."
    return ""


def _parameters(rows: Sequence[Sampled]) -> list[str]:
    return list(dict.fromkeys(key for _, params, _ in rows for key in params))


def _importances(rows: list[Sampled], space: Space, lower: bool) -> Figure:
    """Draw the share that each parameter has in an objective being good, the largest on top."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    judged = thinned(rows, MOST_JUDGED)
    kinds = {
        key: _distribution(space, key, [p[key] for _, p, _ in judged if key in p])
        for key in _parameters(judged)
    }
    with _quiet():
        study = optuna.create_study()
        for value, params, _ in judged:
            known = {key: kinds[key] for key in params}
            # PED-ANOVA takes lower for better.
            value = value if lower else -value
            study.add_trial(create_trial(value=value, params=params, distributions=known))
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    bars = [
        {"name": name, "x": value, "text": f"{name}\n{value:.3f}"} for name, value in found.items()
    ]
    axis = alt.Axis(labelExpr=cut_labels(), domain=False, ticks=False)
    drawn = chart("bars")
    return figure(
        {"bars": bars},
        drawn.mark_bar(color=colour("s1")),
        drawn.mark_text(align="left", dx=5)
        .transform_calculate(label="datum.x < 0.01 ? '<0.01' : format(datum.x, '.2f')")
        .encode(text="label:N"),
        height=60 + 34 * len(bars),
        # Room for the numbers beside the bars.
        x=alt.X(
            "x:Q",
            title="share of importance",
            scale=alt.Scale(domain=[0, 1.12 * max(found.values())], nice=False),
        ),
        y=alt.Y("name:N", title=None, sort=None, axis=axis),
        tooltip="text:N",
    )


def _distribution(space: Space, key: str, values: list[Any]) -> BaseDistribution:
    """Return the space's distribution of a parameter, or one of what was sampled."""
    if key in space.parameters:
        found = distribution(space, key)
        if isinstance(found, CategoricalDistribution):
            fits = all(value in found.choices for value in values)
        else:
            assert isinstance(found, IntDistribution | FloatDistribution)
            fits = all(not isinstance(v, str) and found.low <= v <= found.high for v in values)
        if fits:
            return found
    if any(isinstance(value, str | bool) for value in values):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values))
    return FloatDistribution(min(values), max(values))


def _parallel(rows: Sequence[Sampled], space: Space, objective: str) -> Figure:
    """Draw a line for each trial through an axis for its objective and each parameter."""
    columns: dict[str, list[Any]] = {objective: [value for value, *_ in rows]}
    columns |= {key: [p.get(key) for _, p, _ in rows] for key in sorted(_parameters(rows))}
    lines: list[Row] = []
    ticks: list[Row] = []
    for place, (name, values) in enumerate(columns.items()):
        log = name in space.parameters and getattr(distribution(space, name), "log", False)
        heights, labels = _heights(values, log=log)
        ticks += [{"x": place, "y": y, "label": label} for y, label in labels]
        for rank, (value, y, row) in enumerate(zip(values, heights, rows, strict=True)):
            text = hover(row[2], f"{name}: {_short(value)}")
            good = 1 - rank / max(1, len(rows) - 1)
            lines.append({"x": place, "y": y, "trial": row[2], "good": good, "text": text})
    lines.sort(key=lambda row: row["good"])  # better ones are drawn over the others
    ramp = alt.Scale(domain=[0, 1], range=[colour("weak"), colour("strong")])
    strength = alt.Color("good:Q", scale=ramp, legend=None)
    height = alt.Y("y:Q", scale=alt.Scale(domain=[-0.12, 1.05], nice=False), axis=None)
    names, drawn, marks = map(chart, ("axes", "trials", "ticks"))
    texts: Row = {"fontSize": 11, "limit": 150}
    beside: Row = texts | {"align": "left", "dx": 6}
    axes = [{"x": place, "label": name} for place, name in enumerate(columns)]
    return figure(
        {"axes": axes, "trials": lines, "ticks": ticks},
        names.mark_rule(color=colour("muted")),
        drawn.mark_line(size=1.6, opacity=0.75).encode(
            y=height, color=strength, detail="trial:N", tooltip=alt.TooltipValue(None)
        ),
        drawn.mark_point(filled=True, size=30, opacity=0.6).encode(
            y=height, color=strength, tooltip="text:N"
        ),
        marks.mark_text(stroke=colour("paper"), strokeWidth=4, **beside).encode(
            y=height, text="label:N"
        ),
        marks.mark_text(**beside).encode(y=height, text="label:N"),
        names.mark_text(baseline="bottom", dy=-4, fontWeight="bold", **texts).encode(
            text="label:N", y=alt.YValue(0)
        ),
        height=420,
        least=170 * len(columns),
        x=alt.X(
            "x:Q",
            axis=None,
            scale=alt.Scale(domain=[-0.3, len(columns) - 0.4], nice=False),
        ),
    )


def _heights(values: list[Any], *, log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Return where values stand on an axis from 0 to 1, and its labels; without a value, below."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        scale = math.log10 if log and min(known) > 0 else float
        low, high = scale(min(known)), scale(max(known))
        at = {value: (scale(value) - low) / ((high - low) or 1) for value in known}
        marks = dict.fromkeys([min(known), max(known)])
    else:
        marks = dict.fromkeys(sorted(known, key=str))
        at = {value: place / max(1, len(marks) - 1) for place, value in enumerate(marks)}
    labels = [(at[value], _short(value)) for value in marks]
    if len(known) < len(values):
        labels.append((-0.1, "none"))
    return [-0.1 if value is None else at[value] for value in values], labels


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_LABEL else f"…{text[1 - LONGEST_LABEL :]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from talking to whoever asked for a report."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with experimental_accepted(), warnings.catch_warnings():
            # It says that it takes lower for better, which is seen to.
            warnings.filterwarnings("ignore", message="PedAnova", category=UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
