"""The page: texts, tables and figures of a report in one file that asks nobody for anything."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from sculpt.errors import InputError
from sculpt.files import replacing
from sculpt.results.numbers import duration, percent, points, short
from sculpt.results.records import Results
from sculpt.results.report.content import Content, collect
from sculpt.results.report.curve_figures import learning_curves, proxy_figures
from sculpt.results.report.drawing import Figure
from sculpt.results.report.error_figures import error_against_sparsity
from sculpt.results.report.interval_figures import confirmation_intervals, published_intervals
from sculpt.results.report.layer_figures import layer_densities, signal_figures
from sculpt.results.report.optuna_figures import OptunaFigure, optuna_figures
from sculpt.results.tables import describe_tally
from sculpt.results.tables.published import published_texts
from sculpt.results.wording import configuration

SHOWN_ROWS = 30
"""Of the ranking; the others are folded away."""


def write_report(results: Results, path: Path) -> None:
    """Write a study's report to a file, which is seen whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    results = results.snapshot()
    content = collect(results)
    page = render(content, optuna_figures(content, results.config))
    try:
        with replacing(path) as part:
            # As it is: the page names its scripts by hashes, which other line ends would break.
            part.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise InputError(
            f"the report must go to a file that can be written, but got {path} "
            f"({error.strerror or error}); give another with --output"
        ) from error


def render(content: Content, optuna: list[OptunaFigure]) -> str:
    """Return the page as HTML."""
    from plotly.offline import get_plotlyjs

    single = {
        "errors": error_against_sparsity(content),
        "published": published_intervals(content),
        "confirmation": confirmation_intervals(content),
        "layers": layer_densities(content),
        "curves": learning_curves(content),
    } | {figure.name: figure.figure for figure in optuna}
    signals, proxies = signal_figures(content), proxy_figures(content)
    figures: dict[str, Figure | None] = {**single, **signals, **proxies}
    scripts = [get_plotlyjs(), *(_text(name) for name in ("figures.js", "front.js", "page.js"))]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "short": short,
        "duration": duration,
        "described": configuration,
    }
    return environment.from_string(_text("page.html.j2")).render(
        content=content,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("sculpt"),
        css=_text("page.css"),
        scripts=scripts,
        policy=content_policy(scripts),
        figures={name: figure.get("least", 0) for name, figure in figures.items() if figure},
        figures_json=to_json({name: figure for name, figure in figures.items() if figure}),
        trials_json=to_json(trials_document(content)),
        signals=list(signals),
        proxies=list(proxies),
        optuna=optuna,
        beside=published_texts(content.document["published"]),
        states=_states(content),
        tally=describe_tally(content.document["trials"]),
        shown=SHOWN_ROWS,
    )


def trials_document(content: Content) -> dict[str, Any]:
    """Return what the page's own scripts draw: the front, and one trial at a time."""
    return {
        "objectives": content.objectives,
        "axes": content.axes,
        "budgets": content.budgets,
        "selected": content.selected,
        "trials": [
            {
                "trial": trial["trial"],
                "base": trial["role"] == "base",
                "group": trial["group"],
                "params": trial["params"],
                "values": [trial["values"][o["name"]] for o in content.objectives],
                "facts": [text for _, text in _facts(trial)],
            }
            for trial in content.trials
        ],
        "details": {str(trial): details for trial, details in content.details.items()},
        "study": content.study,
        # Once for all trials, of which there may be thousands.
        "terms": [name for name, _ in _facts(content.trials[0])] if content.trials else [],
    }


def _facts(trial: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the panel says of a trial, each with its name; empty texts are not shown."""
    difference = points(trial["difference"])
    return [
        ("rank", str(trial["rank"])),
        ("validation error", percent(trial["val"])),
        ("test error", percent(trial["test"]) if trial["test"] else ""),
        ("difference to the base", f"{difference} points" if difference else ""),
        ("verdict", trial["verdict"] if trial["role"] == "candidate" else ""),
        ("seeds that diverged", str(trial["diverged"] or "")),
        ("kept", f"{trial['kept_parameters']:,} of {short(trial['dense_parameters'])}"),
        ("sparsity", f"{trial['sparsity']:.2%}"),
        ("kept MACs", f"{short(trial['kept_macs'])} of {short(trial['dense_macs'])}"),
    ]


def _states(content: Content) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the trials that ended without a result, by what became of them."""
    return [
        (state, [trial for trial in content.unfinished if trial["state"] == state])
        for state in ("stopped", "failed", "infeasible", "interrupted")
    ]


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
