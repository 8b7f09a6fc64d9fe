"""Tables as files: CSV and Parquet, written whole or not at all."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from sculpt.errors import InputError
from sculpt.files import check_file, replacing


def to_csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV text: what is missing is empty, lists and dictionaries are JSON."""
    nested = {
        str(name): frame[name].map(
            lambda cell: _text(cell) if isinstance(cell, list | dict) else cell
        )
        for name in frame
        if frame[name].dtype == object
    }
    return frame.assign(**nested).to_csv(index=False, lineterminator="\n")


def to_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, so that `pandas.read_parquet` gives its values back.

    Lists stay lists. What Parquet has no type for becomes text: dictionaries as JSON, and
    columns of several types (numbers beside words) cell by cell.

    Raises:
        InputError: pyarrow is not installed, or the file cannot be written; it is then as it was.
    """
    try:
        arrow = import_module("pyarrow")
    except ImportError as error:
        raise InputError(
            "Parquet must be written by pyarrow, but it is not installed; pip install "
            "'sculpt[parquet]', or take csv"
        ) from error
    typed = {
        str(name): _of_one_type(frame[name], arrow) for name in frame if frame[name].dtype == object
    }
    with writing(path), replacing(path) as part:
        frame.assign(**typed).to_parquet(part, engine="pyarrow", index=False)


def write_text(text: str, path: Path) -> None:
    """Write a text file.

    Raises:
        InputError: it cannot be written; it is then as it was.
    """
    with writing(path), replacing(path) as part:
        # As it is: a page names its scripts by hashes, which other line ends would break. Halves
        # of letters, which no encoding has, are replaced.
        part.write_text(text, encoding="utf-8", errors="replace", newline="\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write a file into an error of the user's.

    Raises:
        InputError: an OSError was raised inside, or there is something that is no file.
    """
    try:
        with suppress(FileNotFoundError):
            check_file(path)  # what is there is replaced, and should be no device
        yield
    except OSError as error:
        raise InputError(
            f"--output must be a file that can be written, but got {path} "
            f"({error.strerror or error}); give another"
        ) from error


def flat_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return JSON rows as a table, nested keys joined by dots.

    A key that holds a dictionary in some rows, and nothing in the others, has only the columns of
    the dictionary.
    """
    frame = pd.json_normalize(list(rows))
    names = [str(name) for name in frame]
    hollow = [
        name
        for name in names
        if frame[name].map(_is_empty).all() and any(other.startswith(f"{name}.") for other in names)
    ]
    return frame.drop(columns=hollow)


def _of_one_type(column: pd.Series, arrow: Any) -> pd.Series:
    """Return a column of objects with one type that Parquet has."""
    cells = column.where(column.notna(), None)
    if not cells.map(_holds_dictionary).any():
        try:
            arrow.array(cells.tolist(), from_pandas=True)
            return cells
        except arrow.ArrowException:  # several types
            pass
    return cells.map(_text, na_action="ignore")


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)


def _holds_dictionary(cell: Any) -> bool:
    if isinstance(cell, list):
        return any(map(_holds_dictionary, cell))
    return isinstance(cell, dict)


def _is_empty(cell: Any) -> bool:
    return cell is None or cell == {} or (isinstance(cell, float) and cell != cell)
