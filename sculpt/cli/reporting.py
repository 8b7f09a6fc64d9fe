"""The command that writes a study down for others to read."""

from pathlib import Path
from typing import Annotated

import typer

from sculpt.cli.options import Storage, StudyName, progress_console


def report(
    study: StudyName,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Where to; by default NAME-report.html, here."),
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a page that says what a study has found; it works offline, and can be sent.

    Example: sculpt report studies/digits.yaml --output report.html
    """
    from sculpt.results.records import open_results
    from sculpt.results.report.page import write_report

    results = open_results(study, storage)
    path = output or Path(f"{results.config.study}-report.html")
    write_report(results, path)
    progress_console.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)
