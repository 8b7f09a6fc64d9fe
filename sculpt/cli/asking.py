"""Commands that ask a study for what it has found."""

from typing import Annotated

import typer

import sculpt
from sculpt.cli.options import (
    AsFormat,
    Json,
    Kept,
    Output,
    Plugins,
    Storage,
    label,
    listed,
    show_document,
    show_table,
)

Studies = Annotated[
    list[str],
    typer.Argument(
        help="Study files (YAML or .db), names of studies, or folders of archives.",
        metavar="STUDY...",
    ),
]


def status(
    study: Kept, storage: Storage = None, plugins: Plugins = None, as_json: Json = False
) -> None:
    """Count a study's trials by what became of them.

    Examples:
        sculpt status studies/digits.yaml
        sculpt status digits --storage runs/digits.db --json
    """
    from sculpt.units import describe_tally

    document = sculpt.status(study, storage)
    opponents = "".join(
        f"\n{name}: {state}" for name, state in document.get("opponents", {}).items()
    )
    text = f"{document['study']}: {describe_tally(document['trials'])}{opponents}"
    show_document(document, as_json, lambda _: text)


def rank(
    study: Kept,
    format: AsFormat = "table",
    output: Output = None,
    storage: Storage = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Rank a study's finished trials against the dense base.

    Also shows what confirms the best. Trials that ended without a result stand below the ranking.
    CSV and Parquet hold the ranking.

    Examples:
        sculpt rank studies/digits.yaml
        sculpt rank studies/digits.yaml --format csv --output ranking.csv
    """
    from sculpt.results.tables.ranking import ranking_tables

    document = sculpt.rank(sculpt.open_results(study, storage))
    if not as_json and format in ("csv", "parquet"):
        from sculpt.results.formats import flat_frame
        from sculpt.results.ranking import all_rows

        show_table(flat_frame(all_rows(document)), format, output)
        return
    show_document(document, as_json or format == "json", ranking_tables, output=output)


def pareto(
    studies: Studies,
    objectives: Annotated[
        str | None,
        typer.Option(help="Names, separated by commas; by default those of the first study."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="A condition on trials, in pandas query syntax over every recorded column: "
            '"widening > 2 and epochs < 30". Names with dots stand in backticks, the whole in '
            "single quotes: '`pruning.repair` == True'."
        ),
    ] = None,
    dominated: Annotated[
        bool, typer.Option("--dominated", help="Show the trials that others dominate, too.")
    ] = False,
    format: AsFormat = "table",
    output: Output = None,
    storage: Storage = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Show the trials that no other beats in every objective.

    Each budget has a front of its own.

    Examples:
        sculpt pareto studies/digits.yaml --objectives val_error,macs
        sculpt pareto studies/digits.yaml --where "widening > 2" --format csv
    """
    from sculpt.results.pareto import pareto_document
    from sculpt.results.tables.pareto import pareto_table

    names = listed(objectives) if objectives else None
    opened = [sculpt.open_results(study, storage) for study in studies]
    if not as_json and format in ("csv", "parquet"):
        table = sculpt.pareto(opened, names, where, dominated)
        # Text in every file, also in one that happens to hold no base.
        show_table(table.astype({"trial": str}), format, output)
        return
    document = pareto_document(opened, names, where, dominated)
    show_document(document, as_json or format == "json", pareto_table, output=output)


def compare(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="STUDY or STUDY:TRIAL; a trial is a number, base, best or an opponent's label.",
            metavar="NETWORK...",
        ),
    ],
    storage: Storage = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Compare networks of any studies with the first of them.

    Also shows how their settings differ.

    Examples:
        sculpt compare studies/digits.yaml:base studies/digits.yaml:best
        sculpt compare studies/digits.yaml:3 studies/mnist.yaml
    """
    from sculpt.results.tables.comparison import comparison_tables

    show_document(sculpt.compare(networks, storage), as_json, comparison_tables)


def show(
    study: Kept,
    trial: Annotated[
        str, typer.Argument(help="A trial's number, base, best or an opponent's label.")
    ],
    storage: Storage = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Show everything that is known of one trial.

    Its layers, its signals and its learning curves.

    Examples:
        sculpt show studies/digits.yaml best
        sculpt show studies/digits.yaml base --json
    """
    from sculpt.results.tables.trial import trial_tables

    record = sculpt.open_results(study, storage).record(label(trial))
    show_document(record, as_json, trial_tables)
