"""Optuna's own figures of a study, made safe to embed and coloured like the others."""

import html
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from sculpt.config import Params, Space, Study
from sculpt.registry import OBJECTIVES
from sculpt.results.report.content import Content
from sculpt.results.report.drawing import Figure, cut, escaped, thinned
from sculpt.results.rows import rounded
from sculpt.search.sampling.space import distribution
from sculpt.search.storage.optuna_names import experimental_accepted

FEWEST = 4
"""Finished candidates from which on a figure over parameters says anything."""

MOST_LINES = 200
"""Trials in parallel coordinates, the best ones."""

MOST_JUDGED = 1000
"""Trials that importances are estimated from, evenly chosen from the best to the worst."""

LONGEST_LABEL = 22

ONLY_TEMPLATE = "%{customdata[0]}: %{customdata[1]}<extra></extra>"
"""The one hover template that is kept: it holds nothing that was given."""

Row = tuple[float, Params]
"""A finished candidate: its objective, and its parameters."""


@dataclass(frozen=True)
class OptunaFigure:
    """A figure, or why there is none."""

    name: str
    title: str
    figure: Figure | None
    note: str


def optuna_figures(content: Content, config: Study) -> list[OptunaFigure]:
    """Return importances and parallel coordinates over the study's first objective."""
    objective = config.search.objectives[0]
    lower = OBJECTIVES.get(objective).direction == "minimize"
    rows = [
        (value, trial.row["params"])
        for trial in content.candidates
        if (value := trial.values.get(objective)) is not None
    ]
    rows.sort(key=lambda row: row[0] if lower else -row[0])
    problem = _problem(rows)
    found = []
    for name, title, make in (
        ("importances", "Parameter importance", _importances),
        ("parallel", "Parallel coordinates", _parallel),
    ):
        why, made = problem, None
        if not why:
            try:
                with _quiet():
                    made = make(rows, config.space, objective, lower)
            except (ValueError, RuntimeError, ZeroDivisionError) as error:
                why = f"Left out: Optuna cannot draw it ({error})."
        found.append(OptunaFigure(name, title, made, why or _note(name, len(rows), objective)))
    return found


def _problem(rows: list[Row]) -> str:
    """Say why nothing can be drawn; empty if something can."""
    if len(rows) < FEWEST:
        return f"Left out: it takes {FEWEST} finished candidates, and there are {len(rows)}."
    if len({value for value, _ in rows}) < 2:
        return "Left out: all finished candidates have the same value of the first objective."
    sampled = {key for _, params in rows for key in params}
    if not any(len({str(params.get(key)) for _, params in rows}) > 1 for key in sampled):
        return "Left out: no parameter differs between the finished candidates."
    return ""


def _note(name: str, count: int, objective: str) -> str:
    if name == "importances":
        return (
            f"How much each parameter has to do with a good {objective} (PED-ANOVA by Optuna, over "
            f"{min(count, MOST_JUDGED):,} finished candidates); a tendency, and no test."
        )
    whom = "each finished candidate"
    if count > MOST_LINES:
        whom = f"each of the {MOST_LINES} best finished candidates"
    return f"One line for {whom}; the stronger its colour, the better its {objective}."


def _study(rows: list[Row], space: Space) -> optuna.Study:
    """Return a study in memory: reading Optuna's objects from a storage takes far longer."""
    keys = dict.fromkeys(key for _, params in rows for key in params)
    kinds = {k: _distribution(space, k, [p[k] for _, p in rows if k in p]) for k in keys}
    study = optuna.create_study()
    for value, params in rows:
        known = {key: kinds[key] for key in params}
        study.add_trial(create_trial(value=value, params=params, distributions=known))
    return study


def _distribution(space: Space, key: str, values: list[Any]) -> BaseDistribution:
    """Return the space's distribution of a parameter, or one of what was sampled."""
    if key in space.parameters:
        found = distribution(space, key)
        if isinstance(found, CategoricalDistribution):
            fits = all(value in found.choices for value in values)
        else:
            fits = all(not isinstance(v, str) and _within(found, v) for v in values)
        if fits:
            return found
    if any(isinstance(value, str | bool) for value in values):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values))
    return FloatDistribution(min(values), max(values))


def _within(found: BaseDistribution, value: float) -> bool:
    if not isinstance(found, IntDistribution | FloatDistribution):
        return False
    return found.low <= value <= found.high


def _importances(rows: list[Row], space: Space, objective: str, lower: bool) -> Figure:
    # PED-ANOVA takes lower for better.
    turned = [(value if lower else -value, params) for value, params in rows]
    drawn = optuna.visualization.plot_param_importances(
        _study(thinned(turned, MOST_JUDGED), space), target_name=objective
    )
    made = _plain(drawn.to_plotly_json())
    for trace in made["data"]:
        trace["hoverinfo"] = "x+y"
        trace["marker"] = {"color": "@s1"}
        trace["y"] = [str(name) for name in trace["y"]]
    bars = max((len(trace["y"]) for trace in made["data"]), default=0)
    highest = max((x for trace in made["data"] for x in trace["x"]), default=1.0)
    made["layout"] = {
        "height": 110 + 34 * bars,
        "showlegend": False,
        "margin": {"l": 8, "r": 40, "t": 8, "b": 8},
        # Room for the numbers beside the bars.
        "xaxis": {
            "title": {"text": "share of importance"},
            "automargin": True,
            "range": [0, 1.12 * highest],
        },
        "yaxis": {"automargin": True, "type": "category"},
    }
    return made


def _parallel(rows: list[Row], space: Space, objective: str, lower: bool) -> Figure:
    drawn = optuna.visualization.plot_parallel_coordinate(
        _study(rows[:MOST_LINES], space), target_name=objective
    )
    made = _plain(drawn.to_plotly_json())
    for trace in made["data"]:
        if trace.get("mode") == "lines":
            height = rounded((trace.get("y") or [None])[0]) or 0.0
            line = {"color": f"@ramp/{1 - height if lower else height:.3f}", "width": 1.6}
            trace |= {"line": line, "opacity": 0.75, "showlegend": False}
        elif "marker" in trace:
            ends = ["@ramp/1", "@ramp/0"] if lower else ["@ramp/0", "@ramp/1"]
            scale = {"colorscale": [[0, ends[0]], [1, ends[1]]], "reversescale": False}
            trace["marker"] |= scale
            bar = trace["marker"].get("colorbar") or {}
            trace["marker"]["colorbar"] = bar | {"thickness": 12, "outlinewidth": 0}
    layout = made["layout"]
    for note in layout.get("annotations") or []:
        note["font"] = {"color": "@ink", "size": 11}
        note["bgcolor"] = "@paper/0.75"
        note["text"] = escaped(cut(html.unescape(note.get("text", "")), LONGEST_LABEL))
    for shape in layout.get("shapes") or []:
        shape["line"] = {"color": "@muted", "width": 1}
    for key in ("title", "plot_bgcolor", "legend"):
        layout.pop(key, None)
    margin = {"l": 70, "r": 12, "t": 12, "b": 8}
    made["layout"] = layout | {"height": 420, "showlegend": False, "margin": margin}
    made["layout"]["xaxis"] = (layout.get("xaxis") or {}) | {"automargin": True}
    made["least"] = 170 * len(made["layout"]["xaxis"].get("tickvals") or [])
    return made


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


def _plain(value: Any) -> Any:
    """Return a figure as JSON: texts escaped, numbers finite, nothing of Optuna's look."""
    if isinstance(value, dict):
        kept = {k: _plain(v) for k, v in value.items() if k not in ("template", "texttemplate")}
        if value.get("hovertemplate", ONLY_TEMPLATE) != ONLY_TEMPLATE:
            # Others hold names of parameters, in which a template could be hidden.
            del kept["hovertemplate"]
        elif "hovertemplate" in kept:
            kept["hovertemplate"] = ONLY_TEMPLATE
        return kept
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, bool | int | None):
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return rounded(value)
