"""The page: texts, tables and figures of a report in one file that asks nobody for anything."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from sculpt.documents import Document
from sculpt.presentation.candidate_figures import (
    MOST_DOMINATED,
    STEPS,
    error_against_size,
    error_against_sparsity,
    objective_axes,
    pareto_front,
    series_of,
)
from sculpt.presentation.content import Content, collect
from sculpt.presentation.figures.drawing import COLOURS, CONFIG, Figure
from sculpt.presentation.figures.rendering import browser_library
from sculpt.presentation.interval_figures import confirmation_intervals, published_intervals
from sculpt.presentation.network_figures import (
    layer_densities,
    learning_curves,
    panel_figures,
    proxy_figures,
    signal_figures,
)
from sculpt.presentation.parameter_figures import ParameterFigure, parameter_figures
from sculpt.results.formats import write_text
from sculpt.results.records import Results
from sculpt.results.tables.ranking import (
    confirmation_table,
    published_tables,
    rival_tables,
    unranked_table,
)
from sculpt.table import Table
from sculpt.units import describe_tally
from sculpt.version import VERSION

SHOWN_ROWS = 30
"""Rows of the ranking; the others are folded away."""


def write_report(results: Results, path: Path) -> None:
    """Write a study's report to a file, which is seen whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    content = collect(results)
    write_text(render(content, parameter_figures(content, results.config)), path)


def render(content: Content, parameters: list[ParameterFigure]) -> str:
    """Return the page as HTML."""
    single = {
        "errors": error_against_sparsity(content),
        "sizes": error_against_size(content),
        "published": published_intervals(content),
        "confirmation": confirmation_intervals(content),
        "layers": layer_densities(content),
        "curves": learning_curves(content),
    } | {figure.name: figure.figure for figure in parameters}
    signals, proxies = signal_figures(content), proxy_figures(content)
    figures: dict[str, Figure | None] = {**single, **signals, **proxies}
    scripts = [browser_library(), _text("page.js")]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    confirmation = content.document["confirmation"]
    return environment.from_string(_text("page.html.j2")).render(
        content=content,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=VERSION,
        colours=COLOURS,
        css=_text("page.css"),
        scripts=scripts,
        policy=content_policy(scripts),
        figures={name: figure["usermeta"]["least"] for name, figure in figures.items() if figure},
        figures_json=to_json({name: figure for name, figure in figures.items() if figure}),
        trials_json=to_json(trials_document(content)),
        signals=list(signals),
        proxies=list(proxies),
        parameters=parameters,
        beside=published_tables(content.document["published"]),
        confirmation=confirmation and confirmation_table(confirmation, content.metric),
        rivals=rival_tables(content.document),
        states=_states(content),
        tally=describe_tally(content.document["trials"]),
        shown=SHOWN_ROWS,
    )


def trials_document(content: Content) -> Document:
    """Return the data of the page's own script: the front, and one trial at a time."""
    front = pareto_front(content)
    axes = objective_axes(content)
    return {
        "study": content.study,
        "selected": content.selected,
        "colours": COLOURS,
        "config": CONFIG,
        "axes": content.axes,
        "objectives": [
            {**objective, "channel": axis, "step": STEPS[objective["direction"]]}
            for objective, axis in zip(content.objectives, axes, strict=True)
        ],
        "fronts": content.fronts,
        "most": MOST_DOMINATED,
        "front": front and {key: part for key, part in front.items() if key != "datasets"},
        "panel": panel_figures(),
        "trials": [
            {
                "trial": trial.label,
                "name": trial.name,
                "series": series_of(trial.group),
                "params": trial.params,
                "values": [trial.values[objective["name"]] for objective in content.objectives],
                "facts": list(trial.facts.items()),
            }
            for trial in content.trials
        ],
        "details": {str(trial): details for trial, details in content.details.items()},
    }


def _states(content: Content) -> list[tuple[str, Table]]:
    """Return the trials that ended without a result, by what became of them."""
    ended = {
        state: [row for row in content.unfinished if row["state"] == state]
        for state in ("stopped", "failed", "infeasible", "interrupted")
    }
    return [(state, unranked_table(rows)) for state, rows in ended.items() if rows]


def to_json(value: Any) -> str:
    r"""Return JSON that can stand inside a script element: <, > and & as \uXXXX."""
    # In ASCII: the line ends that JavaScript alone knows, and halves of letters, are escaped too.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def content_policy(scripts: list[str]) -> str:
    """Return a policy under which only these scripts run, and nothing is ever fetched."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; connect-src 'none'; base-uri 'none'; "
        "form-action 'none'"
    )


def _text(name: str) -> str:
    """Return a file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
