"""The command that writes a study file to begin with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import sculpt
from sculpt.cli.options import Json, say, say_next, show_document


def init(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.yaml", help="Where to; it names the study.")
    ] = Path("study.yaml"),
    data: Annotated[
        Literal["digits", "image_folder", "import"],
        typer.Option(
            help="Images of ten digits, which are here; images of yours; or code of yours, for "
            "any data and network."
        ),
    ] = "digits",
    root: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of your images: train/CLASS/ and test/CLASS/."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a commented study file to begin with.

    It runs as it is, and its comments say what each key means. For import, my_lab.py is written
    beside it, to be changed. No file is written over.

    Examples:
        sculpt init mine.yaml
        sculpt init mine.yaml --data image_folder --root DIR
        sculpt init waves.yaml --data import
    """
    written = sculpt.write_study(file, data, root=root)
    for path in written:
        say(f"written: {path}")
    python_path = str(file.parent) if data == "import" else None
    say_next("next:", ["check", str(file)], ["run", str(file)], python_path=python_path)
    show_document({"written": [str(path) for path in written]}, as_json)
