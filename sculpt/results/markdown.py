"""Strings of unknown content in Markdown, so that they show as the text that they are."""

import re

LONGEST = 600
"""Characters of a string that are shown; notes and tables should stay short."""


def code(text: object) -> str:
    """Return a string as a code span: nothing in one is a link, a picture or a tag."""
    line = _one_line(text)
    # A span ends at as many backticks as it began with, so begin with more than are inside. The
    # spaces are not shown; they keep a backtick at either end apart from those.
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line or ' '}{space}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Return lines as a code block, whatever they hold."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def prose(text: object) -> str:
    """Return a string as running text: its own Markdown is shown and does nothing."""
    line = re.sub(r"([\\`*_\[\]<>&#|~!{}$^])", r"\\\1", _one_line(text))
    # What begins a list or a line, at the beginning alone: "1. ", "- ", "---".
    return re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=]))", r"\1\\", line)


def _one_line(text: object) -> str:
    """Return a string without line breaks, which could begin another kind of block."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
