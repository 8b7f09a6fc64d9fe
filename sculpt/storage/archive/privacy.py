"""Hiding, in the texts of an archive, where things lay on the machines that a study ran on."""

import itertools
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

    A path is replaced by the file's own name, a URL other than of the web by its scheme, in every
    text: any option of a plug-in, and any message of an error, may hold one. Hiding is idempotent.
    """

    names: dict[str, str]
    """Known paths and URLs -> the names that replace them."""

    def hide(self, value: Any) -> Any:
        """Return a JSON value with all of its texts hidden."""
        if isinstance(value, dict):
            return {key: self.hide(element) for key, element in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(element) for element in value]
        return self.hide_text(value) if isinstance(value, str) else value

    def hide_text(self, text: str) -> str:
        """Return a text without paths and URLs."""
        if self.names:
            # In one pass, because the name of one may be the path of another.
            known = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True)))
            text = re.sub(
                rf"(?<![\w/.-])({known})(?![\w-])({_PART}*)",
                # The file's own name, if it lies under a known path.
                lambda found: found[2].rpartition("/")[2] or self.names[found[1]],
                text,
            )
        if "/" in text:
            text = _CREDENTIALS.sub(r"\1", _URL.sub(r"\1://...", text))
            text = _QUOTED.sub(r"\1\3\1", text)
            text = _PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)
            if re.fullmatch(r"~?/[^\s/]+/?", text):
                text = text.strip("~/")
        return _WINDOWS.sub(r"\1", text)

    def hide_message(self, message: Any) -> Any:
        """Return an error message, in which this machine's name is hidden, too."""
        if not isinstance(message, str):  # written by a plug-in
            return self.hide(message)
        host = re.escape(socket.gethostname())
        return re.sub(rf"(?<!\w){host}(?!\w)", "HOST", self.hide_text(message))


def privacy_of(config: Study, places: Iterable[str]) -> Privacy:
    """Return what stands for the paths and URLs of a study's settings, and for further places."""
    settings = config.model_dump(mode="json")
    private = [lookup(settings, key) for key in PRIVATE]
    known = [text.rstrip("/") for text in [*private, *places] if isinstance(text, str)]
    files: dict[str, str] = {}  # all of different names
    for path in sorted(paths_in(settings), key=lambda path: (Path(path).name != path, path)):
        file = Path(path)
        numbered = (f"{file.stem}-{count}{file.suffix}" for count in itertools.count(2))
        names = itertools.chain([file.name], numbered)
        files[path] = next(name for name in names if name not in files.values())
    hidden = {place: PurePath(place).name for place in known} | files
    return Privacy({place: name for place, name in hidden.items() if name not in ("", place)})
