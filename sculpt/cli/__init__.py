"""The command line: parse, call one function, print."""

import codecs
import gc
import inspect
import io
import sys
from collections.abc import Callable
from textwrap import dedent, indent

import typer

from sculpt.cli.asking import compare, pareto, rank, show, status
from sculpt.cli.computing import bench, check, diagnose
from sculpt.cli.exporting import export, latency, verify
from sculpt.cli.first_study import init
from sculpt.cli.options import put
from sculpt.cli.reporting import archive, dashboard, report
from sculpt.cli.running import run, worker
from sculpt.errors import SculptError

EXAMPLES = """\
sculpt init mine.yaml      # a commented study to begin with
sculpt check mine.yaml     # the sizes of its networks; trains nothing
sculpt run mine.yaml       # prune, train and rank them; Ctrl-C, and go on
sculpt report mine.yaml    # a page of what it has found
sculpt export mine.yaml    # the best network, as files"""


def _as_written(examples: str) -> str:
    """Make a paragraph of examples, whose lines stay as they are."""
    return f"\b\nExamples:\n{indent(examples, '  ')}"


app = typer.Typer(
    help="Search for sparse networks that beat a dense one of the same size.",
    epilog=_as_written(EXAMPLES),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whose imports are more than half of the time that help takes
)
COMMANDS: tuple[Callable[..., None], ...] = (
    *(init, check, run, worker, status, rank, pareto, show, compare, report, archive),
    *(dashboard, export, verify, latency, diagnose, bench),
)


def help_of(command: Callable[..., None]) -> tuple[str, str]:
    """Return the description of a command, and its examples, a line each."""
    text, _, examples = (inspect.getdoc(command) or "").partition("\n\nExamples:\n")
    return text, dedent(examples)


for command in COMMANDS:
    text, examples = help_of(command)
    app.command(help=text, epilog=_as_written(examples))(command)


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
    printed = sys.stdout
    try:
        try:
            app()
        finally:
            sys.stdout = printed  # Click covers a pipe that was closed, and what waits in it
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
