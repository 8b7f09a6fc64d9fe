"""The commands that write a study down for others to read."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sculpt.cli.options import Kept, Storage, progress_console


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
    from sculpt.results.records import open_results

    results = open_results(study, storage)
    path = output or Path(f"{results.config.study}-report.{format.value}")
    if format is ReportFormat.md:
        from sculpt.results.report.markdown import write_markdown

        write_markdown(results, path)
    else:
        from sculpt.results.report.page import write_report

        write_report(results, path)
    progress_console.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)


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
    from sculpt.results import archiving
    from sculpt.results.records import open_results

    results = open_results(study, storage)
    folder = output or Path("results", results.config.study)
    archiving.archive(results, folder, records=records.value)
    progress_console.print(f"archive: {folder}", highlight=False, markup=False, soft_wrap=True)
