"""The command line: parse, call one function, print."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sculpt.errors import InputError, SculptError

app = typer.Typer(
    help="Search for sparse networks that beat a dense one of the same size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
progress_console = Console(stderr=True)

StudyFile = Annotated[str, typer.Argument(help="A study file (YAML).", metavar="STUDY.yaml")]
StudyName = Annotated[
    str, typer.Argument(help="A study file (YAML), or the name of a study.", metavar="STUDY")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of the study first; may be repeated."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where the study is kept: a .db path or a database URL."),
]


class Format(StrEnum):
    """How a front is printed."""

    table = "table"
    csv = "csv"
    json = "json"


@app.command()
def check(study: StudyFile, set: Set = None, as_json: Json = False) -> None:
    """Validate a study and show the size of every corner of its space; trains nothing.

    Example: sculpt check studies/cifar10_smoke.yaml
    """
    from sculpt.results.tables import check_table
    from sculpt.search.preparation import describe_data, missing_data
    from sculpt.search.space import check_study

    config = _load(study, set, None)
    document = check_study(config, describe_data(config))
    if missing := missing_data(config):
        progress_console.print(f"note: {missing}", style="yellow", markup=False, highlight=False)
    _print(document, as_json, check_table)


@app.command()
def run(
    study: StudyFile,
    set: Set = None,
    storage: Storage = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: Json = False,
) -> None:
    """Run a study, or go on with it, up to its total of trials; then rank them.

    Ctrl-C stops it at once; the same command goes on where it stopped.

    Example: sculpt run studies/digits.yaml --set search.trials=5
    """
    from sculpt import launch
    from sculpt.results import ranking
    from sculpt.results.published import measured_path, write_measured
    from sculpt.results.tables import ranking_table
    from sculpt.search.progress import LiveView

    config = _load(study, set, storage)
    try:
        results = launch.run(config, device=device, watcher=LiveView(progress_console))
    except KeyboardInterrupt:
        progress_console.print("interrupted: finished trials are kept, the same command goes on")
        raise typer.Exit(130) from None
    if config.published:
        write_measured(results, measured_path(study))
        progress_console.print(f"measured figures: {measured_path(study)}", highlight=False)
    _print(ranking.rank(results), as_json, ranking_table)


@app.command()
def status(study: StudyName, storage: Storage = None, as_json: Json = False) -> None:
    """Count a study's trials by what became of them.

    Example: sculpt status studies/digits.yaml
    """
    from sculpt.results.records import open_results
    from sculpt.results.tables import describe_tally

    results = open_results(study, storage)
    document = {"study": results.config.study, "trials": results.tally()}
    _print(document, as_json, lambda d: f"{d['study']}: {describe_tally(d['trials'])}")


@app.command()
def rank(study: StudyName, storage: Storage = None, as_json: Json = False) -> None:
    """Rank a study's finished trials against the dense base.

    Example: sculpt rank studies/digits.yaml --json
    """
    from sculpt.results import ranking
    from sculpt.results.records import open_results
    from sculpt.results.tables import ranking_table

    _print(ranking.rank(open_results(study, storage)), as_json, ranking_table)


@app.command()
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
        _print(document, as_json or format is Format.json, pareto_table)


@app.command()
def show(
    study: StudyName,
    trial: Annotated[str, typer.Argument(help="A trial's number, or base.")],
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show everything that is known of one trial.

    Example: sculpt show studies/digits.yaml 3
    """
    from sculpt.results.records import open_results
    from sculpt.results.tables import signal_table, trial_table

    record = open_results(study, storage).record(int(trial) if trial.isdigit() else trial)
    if record["state"] == "complete":
        _print(record, as_json, trial_table, signal_table)
    else:
        _print(record, as_json, lambda r: f"trial {r['trial']}: {r['state']} {r['error'] or ''}")


@app.command()
def diagnose(
    study: StudyFile,
    set: Set = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw layer sparsities and scores.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prune one candidate and show its layers and signal propagation; trains nothing.

    --set params.KEY=VALUE chooses a value of the space; other keys change the study.

    Example: sculpt diagnose studies/digits.yaml --set params.widening=2 --plot layers.png
    """
    from sculpt.launch import diagnose_candidate
    from sculpt.results.figures import plot_pruning
    from sculpt.results.tables import diagnosis_tables

    sampled = [entry for entry in set or [] if entry.startswith("params.")]
    config = _load(study, [entry for entry in set or [] if entry not in sampled], None)
    params = _overrides([entry.removeprefix("params.") for entry in sampled])
    document, sculpted = diagnose_candidate(config, params, device=device)
    if plot is not None:
        plot_pruning(document, sculpted.scores, plot)
    _print(document, as_json, diagnosis_tables)


def _load(study: str, assignments: list[str] | None, storage: str | None) -> Any:
    from sculpt.study_file import load_study

    overrides = _overrides(assignments or [])
    if storage is not None:
        overrides["storage"] = storage
    return load_study(study, overrides)


def _overrides(assignments: list[str]) -> dict[str, Any]:
    from sculpt.documents import parse_value

    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"--set must be KEY=VALUE, but got {assignment!r}")
        overrides[key] = parse_value(value)
    return overrides


def _print(document: Any, as_json: bool, *views: Any) -> None:
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    # A pipe or a file is not 80 columns wide; a table folded to that is unreadable.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for view in views:
        console.print(view(document), highlight=False)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    try:
        app()
    except SculptError as error:
        print(f"sculpt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
