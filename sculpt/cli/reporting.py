"""Commands that write a study down for others, or show it to them in a browser."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import sculpt
from sculpt.cli.options import Kept, Storage, say


class ReportFormat(StrEnum):
    """What a report is written as; the ending of its file."""

    html = "html"
    md = "md"


class RecordChoice(StrEnum):
    """Of which trials an archive has the whole record; `sculpt.results.archiving.Records`."""

    report = "report"
    all = "all"
    none = "none"


def report(
    study: Kept,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; by default NAME-report.html, here."),
    ] = None,
    format: Annotated[
        ReportFormat,
        typer.Option(help="A page, or Markdown with its figures as PNG in a folder beside it."),
    ] = ReportFormat.html,
    storage: Storage = None,
) -> None:
    """Write down what a study has found, the verdict first: a page that works offline.

    Example: sculpt report studies/digits.yaml --output report.html

    Example: sculpt report studies/digits.yaml --format md --output report.md
    """
    say(f"report: {sculpt.report(study, output, format=format.value, storage=storage)}")


def archive(
    study: Kept,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to; by default results/NAME, here."),
    ] = None,
    records: Annotated[
        RecordChoice,
        typer.Option(help="Whose layers and learning curves: those that report shows, or all."),
    ] = RecordChoice.report,
    storage: Storage = None,
) -> None:
    """Write what a study has found as small text files, which are asked like the study itself.

    To be committed to git: the same results give the same bytes, and there are no paths of this
    machine, and no networks, in them.

    Example: sculpt archive studies/digits.yaml --output results/digits
    """
    results = sculpt.open_results(study, storage)
    say(f"archive: {sculpt.archive(results, output, records=records.value)}")


def dashboard(
    study: Kept,
    host: Annotated[str, typer.Option(help="Where to listen; there is no log-in.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 8080,
    storage: Storage = None,
) -> None:
    """Show a study in Optuna's dashboard, with notes and layer plots; Ctrl-C ends it.

    Example: sculpt dashboard studies/digits.yaml --port 8081
    """
    sculpt.dashboard(study, host=host, port=port, storage=storage, say=say)
