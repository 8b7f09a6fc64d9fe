"""What an archive must not tell of the machines that a study ran on: where things lie there."""

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from sculpt.config import Study
from sculpt.documents import lookup
from sculpt.export.metadata import PRIVATE, paths_in

_URL = re.compile(r"\b(?!https?:)([A-Za-z][\w+.-]*)://[^\s'\"<>]+")
_CREDENTIALS = re.compile(r"(https?://)[^/\s@]+@")
_QUOTED = re.compile(r"""(['"])~?/([^'"\n]*/)?([^'"/\n]+)/?\1""")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\(?:[^\\\s'\"]+\\)*([^\\\s'\"]+)")
_PART = r"(?:/[^\s/'\"`:;,()<>\[\]{}|=]+)"
_PATH = re.compile(rf"(?<![\w:/.~<>)\]}}-])~?{_PART}{{2,}}/?")


@dataclass(frozen=True)
class Privacy:
    """Makes a study's documents fit for anybody to read.

    Of a path only the file's own name is told, of a URL other than of the web only its kind. That
    is done to every text, because nobody knows which option of a plug-in, or which message of an
    error, holds one; hiding what is hidden already changes nothing.
    """

    names: dict[str, str]
    """What is known to be a place, to what is told of it."""

    def hide(self, value: Any) -> Any:
        """Return a JSON value in which no text names a place."""
        if isinstance(value, dict):
            return {key: self.hide(element) for key, element in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(element) for element in value]
        return self.hide_text(value) if isinstance(value, str) else value

    def hide_text(self, text: str) -> str:
        """Return a text that names no place."""
        if self.names:
            # In one pass, because what is told of one may be the place of another.
            known = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True)))
            text = re.sub(rf"(?<![\w/.-])({known})(?![\w-])({_PART}*)", self._name, text)
        if "/" in text:
            text = _CREDENTIALS.sub(r"\1", _URL.sub(r"\1://...", text))
            text = _QUOTED.sub(r"\1\3\1", text)
            text = _PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)
            if re.fullmatch(r"~?/[^\s/]+/?", text):
                text = text.strip("~/")
        return _WINDOWS.sub(r"\1", text)

    def _name(self, found: re.Match[str]) -> str:
        """Return what is told of a known place, or of a file that lies under it."""
        return found[2].rpartition("/")[2] or self.names[found[1]]

    def hide_message(self, message: Any) -> Any:
        """Return what went wrong with a trial, without places and without this machine's name."""
        if not isinstance(message, str):  # written by a plug-in
            return self.hide(message)
        host = re.escape(socket.gethostname())
        return re.sub(rf"(?<!\w){host}(?!\w)", "HOST", self.hide_text(message))


def privacy_of(config: Study, places: Iterable[str]) -> Privacy:
    """Return what hides the places that a study's settings name.

    Args:
        config: The study.
        places: More that are known.
    """
    settings = config.model_dump(mode="json")
    private = [lookup(settings, key) for key in PRIVATE]
    known = [text.rstrip("/") for text in [*private, *places] if isinstance(text, str)]
    names = {place: PurePath(place).name for place in known} | _file_names(paths_in(settings))
    return Privacy({place: name for place, name in names.items() if name not in ("", place)})


def _file_names(paths: set[str]) -> dict[str, str]:
    """Return a name for each file that a study's settings name: two files must not become one."""
    names: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (Path(path).name != path, path)):
        file, count = Path(path), 1
        name = file.name
        while name in names.values():
            count += 1
            name = f"{file.stem}-{count}{file.suffix}"
        names[path] = name
    return names
