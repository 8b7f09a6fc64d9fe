"""Commands that ask a study for what it has found."""

from enum import StrEnum
from typing import Annotated

import typer

from sculpt.cli.options import Json, Storage, StudyName, show_document


class Format(StrEnum):
    """How a front is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def status(study: StudyName, storage: Storage = None, as_json: Json = False) -> None:
    """Count a study's trials by what became of them.

    Example: sculpt status studies/digits.yaml
    """
    from sculpt.results.records import open_results
    from sculpt.results.tables import describe_tally

    results = open_results(study, storage)
    document = {"study": results.config.study, "trials": results.tally()}
    show_document(document, as_json, lambda d: f"{d['study']}: {describe_tally(d['trials'])}")


def rank(study: StudyName, storage: Storage = None, as_json: Json = False) -> None:
    """Rank a study's finished trials against the dense base; show what confirms the best.

    Example: sculpt rank studies/digits.yaml --json
    """
    from sculpt.results import ranking
    from sculpt.results.ranking_tables import ranking_tables
    from sculpt.results.records import open_results

    show_document(ranking.rank(open_results(study, storage)), as_json, ranking_tables)


def pareto(
    study: StudyName,
    objectives: Annotated[
        str | None, typer.Option(help="Names, separated by commas; by default the study's.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help='A condition on trials, for example "widening > 2".')
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print the front.")] = Format.table,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show the trials that no other trial beats in every objective.

    Example: sculpt pareto studies/digits.yaml --objectives val_error,macs --format csv
    """
    from sculpt.results import pareto as front
    from sculpt.results.records import open_results
    from sculpt.results.tables import pareto_table, to_csv

    names = [name.strip() for name in objectives.split(",")] if objectives else None
    document = front.pareto(open_results(study, storage), names, where)
    if format is Format.csv and not as_json:
        print(to_csv(document["front"]), end="")
    else:
        show_document(document, as_json or format is Format.json, pareto_table)


def show(
    study: StudyName,
    trial: Annotated[str, typer.Argument(help="A trial's number, or base.")],
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show everything that is known of one trial.

    Example: sculpt show studies/digits.yaml 3
    """
    from sculpt.results.diagnosis_tables import signal_table, trial_table
    from sculpt.results.records import open_results

    record = open_results(study, storage).record(int(trial) if trial.isdigit() else trial)
    if record["state"] == "complete":
        show_document(record, as_json, trial_table, signal_table)
    else:
        show_document(
            record, as_json, lambda r: f"trial {r['trial']}: {r['state']} {r['error'] or ''}"
        )
