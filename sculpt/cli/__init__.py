"""The command line: parse, call one function, print."""

import sys

import typer

from sculpt.cli.asking import compare, pareto, rank, show, status
from sculpt.cli.computing import bench, check, diagnose
from sculpt.cli.exporting import export, latency, verify
from sculpt.cli.reporting import archive, dashboard, report
from sculpt.cli.running import run, worker
from sculpt.errors import SculptError

app = typer.Typer(
    help="Search for sparse networks that beat a dense one of the same size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    *(check, run, worker, status),
    *(rank, pareto, show, compare, report, archive, dashboard),
    *(export, verify, latency),
    *(diagnose, bench),
):
    app.command()(command)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    try:
        app()
    except SculptError as error:
        print(f"sculpt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
