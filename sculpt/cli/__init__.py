"""The command line: parse, call one function, print."""

import codecs
import gc
import io
import sys
from collections.abc import Callable

import typer

from sculpt.cli.asking import compare, pareto, rank, show, status
from sculpt.cli.computing import bench, check, diagnose
from sculpt.cli.exporting import export, latency, verify
from sculpt.cli.options import put
from sculpt.cli.reporting import archive, dashboard, report
from sculpt.cli.running import run, worker
from sculpt.errors import SculptError

app = typer.Typer(
    help="Search for sparse networks that beat a dense one of the same size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    *(check, run, worker, status, rank, pareto, show, compare, report, archive),
    *(dashboard, export, verify, latency, diagnose, bench),
)
for command in COMMANDS:
    app.command()(command)


IN_ASCII = {
    **{"±": "+-", "−": "-", "–": "-", "×": "x", "·": "*", "…": "...", "‖": "||", "ρ": "rho"},
    **{"ᵀ": "^T", "“": '"', "”": '"', "’": "'", "√": "sqrt ", "│": "|"},
}
"""Letters of our own for a terminal that has not got them; of others it shows the numbers."""

OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Python's own 700 cost a fifth of the time that libraries take to be imported and trials to be
read, nearly all of which stays."""


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    codecs.register_error("sculpt", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sculpt")
    try:
        try:
            app()
        finally:
            put("")  # what waits to be printed, such as a help text
    except SculptError as error:
        print(f"sculpt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    shown = (IN_ASCII.get(x) or x.encode("ascii", "backslashreplace").decode() for x in letters)
    return "".join(shown), error.end
