"""Commands that write a study down for others, or show it to them in a browser."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import sculpt
from sculpt.cli.options import Json, Kept, Plugins, Storage, say, show_document


def report(
    study: Kept,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; by default NAME-report.html, here."),
    ] = None,
    format: Annotated[
        Literal["html", "md"],
        typer.Option(help="A page, or Markdown with its figures as PNG in a folder beside it."),
    ] = "html",
    storage: Storage = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Write down what a study has found, the verdict first.

    A page that works offline, or Markdown.

    Examples:
        sculpt report studies/digits.yaml
        sculpt report studies/digits.yaml --format md --output report.md
    """
    written = sculpt.report(study, output, format=format, storage=storage)
    say(f"report: {written}")
    show_document({"report": str(written)}, as_json)


def archive(
    study: Kept,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to; by default results/NAME, here."),
    ] = None,
    records: Annotated[
        Literal["report", "all", "none"],
        typer.Option(help="Whose layers and learning curves: those that report shows, or all."),
    ] = "report",
    storage: Storage = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Write what a study has found as small text files, for git.

    They are asked like the study itself. The same results give the same bytes, and there are no
    paths of this machine, and no networks, in them.

    Examples:
        sculpt archive studies/digits.yaml
        sculpt archive studies/digits.yaml --output results/digits --records all
    """
    results = sculpt.open_results(study, storage)
    written = sculpt.archive(results, output, records=records)
    say(f"archive: {written}")
    show_document({"archive": str(written)}, as_json)


def dashboard(
    study: Kept,
    host: Annotated[str, typer.Option(help="Where to listen; there is no log-in.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 8080,
    storage: Storage = None,
    plugins: Plugins = None,
) -> None:
    """Show a study in Optuna's dashboard; Ctrl-C ends it.

    With notes and layer plots.

    Examples:
        sculpt dashboard studies/digits.yaml
        sculpt dashboard digits --storage runs/digits.db --port 8081
    """
    sculpt.dashboard(study, host=host, port=port, storage=storage, say=say)
