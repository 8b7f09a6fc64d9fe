"""Options that commands share, and printing a document."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sculpt.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


@cache
def progress_console() -> "Console":
    """Return the console on stderr. Help does not wait for it."""
    from rich.console import Console

    return Console(stderr=True)


def say(message: str, style: str | None = None) -> None:
    """Print a message on stderr, in whole lines: addresses and paths must be easy to copy."""
    progress_console().print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def say_next(title: str, *commands: Sequence[str], python_path: str | None = None) -> None:
    """Print commands of sculpt on stderr, each as it is to be typed here."""
    called = sys.argv[0]
    words = [f"PYTHONPATH={python_path}"] if python_path else []
    if Path(called).name == "__main__.py":
        words += ["python", "-m", "sculpt"]
    else:
        words += ["sculpt" if shutil.which("sculpt") == called else called]
    say("\n  ".join([title, *(shlex.join([*words, *command]) for command in commands)]))


StudyFile = Annotated[str, typer.Argument(help="A study file (YAML).", metavar="STUDY.yaml")]
StudyName = Annotated[
    str,
    typer.Argument(
        help="A study file (YAML), the name of a study, or the file of one (.db).", metavar="STUDY"
    ),
]
Kept = Annotated[
    str,
    typer.Argument(
        help="A study file (YAML), the name of a study, the file of one (.db), or the folder of an "
        "archive.",
        metavar="STUDY",
    ),
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
AsFormat = Annotated[
    Literal["table", "csv", "json", "parquet"],
    typer.Option("--format", help="How to print it."),
]


def _import_plugins(modules: list[str] | None) -> list[str] | None:
    from sculpt.registry import load_plugins

    load_plugins(modules or [])
    return modules


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        callback=_import_plugins,
        help="Import a plug-in first, which is run; may be repeated. Nothing else is imported.",
    ),
]
"""Imported when the command line is parsed: what is read never says what is run."""
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to a file instead.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Devices = Annotated[
    str, typer.Option(help="auto, cpu, cuda, ...; or several, separated by commas: cuda:0,cuda:1")
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Processes that train, dealt out to the devices in turn."),
]
TrialsPerDevice = Annotated[
    str | None,
    typer.Option(metavar="N", help="Trials at a time on each device; auto measures the fastest."),
]


def overrides(
    assignments: list[str] | None, storage: str | None = None, *, option: str = "--set"
) -> dict[str, Any]:
    """Return the values that `KEY=VALUE` entries give to keys, and `--storage` to that key.

    Raises:
        InputError: An entry is none, or its value is not YAML.
    """
    from sculpt.documents import parse_value

    found: dict[str, Any] = {}
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"{option} must be KEY=VALUE, but got {assignment!r}")
        found[key] = parse_value(value)
    return found if storage is None else found | {"storage": storage}


def listed(text: str) -> list[str]:
    """Return the names in `A,B,...`."""
    return [name.strip() for name in text.split(",") if name.strip()]


def label(trial: str) -> int | str:
    """Return a trial as Python users name it: a number, `base` or `best`."""
    return int(trial) if trial.isdigit() else trial


def show_document(document: Any, as_json: bool, *views: Any, output: Path | None = None) -> None:
    """Print a document as JSON, or as the tables that `views` make of it; or write it to a file.

    Raises:
        InputError: The file cannot be written.
    """
    if as_json:
        try:
            text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        except ValueError as error:
            raise InputError(
                f"a JSON document must have finite numbers, but one that is kept is not ({error}); "
                "leave out --json to see it, or restore what was edited from a copy"
            ) from error
    else:
        # A pipe or a file is not 80 columns wide; a table folded to that is unreadable.
        to_terminal = output is None and sys.stdout is not None and sys.stdout.isatty()
        from rich.console import Console

        # A study's words are no markup: "[1, 2]" is a list of blocks.
        console = Console(width=None if to_terminal else 160, markup=False)
        with console.capture() as captured:
            for view in views:
                console.print(view(document), highlight=False)
        text = captured.get()
    show_text(text, output)


def show_text(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file.

    Raises:
        InputError: The file cannot be written.
    """
    if output is None:
        put(text)
        return
    from sculpt.results.formats import write_text

    write_text(text, output)


def show_table(
    frame: "pd.DataFrame", format: Literal["csv", "parquet"], output: Path | None
) -> None:
    """Print a table as CSV, or write it to a file; its index is left out.

    Raises:
        InputError: Parquet has no file to go to or cannot be written here, or the file cannot be
            written; it is then as it was.
    """
    from sculpt.results.formats import to_csv, to_parquet

    if format == "csv":
        show_text(to_csv(frame), output)
    elif output is None:
        raise InputError("Parquet must go to a file, but got none; give --output FILE")
    else:
        to_parquet(frame, output)


def put(text: str) -> None:
    """Print a text at once; whoever has closed the pipe (`| head`) wants no more of it.

    Raises:
        InputError: It cannot be written, for example because the disk is full.
    """
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise InputError(
                f"what is printed must go somewhere, but cannot be written ({error.strerror}); "
                "print it elsewhere"
            ) from error


def read_trials_per_device(given: str | None, workers: int | None) -> Any:
    """Return the number of trials at a time on each device; 1 where it was not given.

    Raises:
        InputError: The number of workers is given, too.
    """
    from sculpt.documents import parse_value

    if given is None:
        return 1
    if workers is not None:
        raise InputError(
            f"the number of workers must be given once, but got both --workers {workers} and "
            f"--trials-per-device {given}; leave out one of them"
        )
    return parse_value(given)
