"""Tables for people: one type that every view returns, and how a terminal and Markdown show it.

A page shows them by a macro of its template. Data go to files from the documents themselves.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import rich.console

MOST_FRAMED = 200
"""Rows of a table that a terminal shows in a frame; rich takes 14 seconds to lay out 5,000."""

LONGEST = 600
"""Characters of a text that Markdown shows; notes and tables should stay short."""

Look = Literal["", "base", "dim", "bad"]
"""Emphasis of a row."""

STYLES = {"": "", "base": "bold", "dim": "dim", "bad": "red"}


def text(value: object) -> str:
    """Return a value as it is: the unit of words."""
    return str(value)


def name(value: object) -> str:
    """Return a value as it is: the unit of words that are typed, of files and parameters."""
    return str(value)


@dataclass(frozen=True)
class Column:
    """A column of a table: its header, what of a row stands in it, and how that is written."""

    header: str
    read: str | int | Callable[[Any], Any]
    """A key of the rows, or a function of them; None is an empty cell."""
    unit: Callable[[Any], str] = text

    @property
    def is_number(self) -> bool:
        """Numbers are flush right."""
        return self.unit not in (text, name)

    def cell(self, row: Any) -> str:
        """Return the text of its cell in a row."""
        value = self.read(row) if callable(self.read) else row[self.read]
        return "" if value is None else self.unit(value)


@dataclass(frozen=True)
class Table:
    """Rows of any kind, and the columns that show them."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Any]
    note: str = ""
    """Explanation below the table."""
    look: Callable[[Any], Look] = lambda row: ""
    ends: frozenset[int] = frozenset()
    """Numbers of rows above each dividing line."""

    @property
    def headers(self) -> list[str]:
        """The names of the columns."""
        return [column.header for column in self.columns]

    @property
    def cells(self) -> list[list[str]]:
        """The texts of each row."""
        return [[column.cell(row) for column in self.columns] for row in self.rows]

    def part(self, begin: int, end: int | None = None) -> "Table":
        """Return the same table of some of its rows."""
        return replace(self, rows=self.rows[begin:end])

    def facts(self, row: Any, *without: str) -> dict[str, str]:
        """Return the cells of a row that are not empty, by header."""
        cells = {column.header: column.cell(row) for column in self.columns}
        return {header: cell for header, cell in cells.items() if cell and header not in without}

    def __rich_console__(
        self, console: "rich.console.Console", options: "rich.console.ConsoleOptions"
    ) -> "rich.console.RenderResult":
        """Show the table; where its words would be cut, each row as lines of `header: cell`."""
        from rich.cells import cell_len
        from rich.table import Table as RichTable
        from rich.text import Text

        cells = self.cells
        columns = zip(self.headers, *cells, strict=True)
        longest = [max(map(cell_len, " ".join(texts).split()), default=0) for texts in columns]
        if 1 + sum(3 + width for width in longest) > options.max_width:
            shown = [self.title]
            for row in self.rows:
                lines = [
                    f"{header}: {cell}".removeprefix(": ")
                    for header, cell in self.facts(row).items()
                ]
                shown.append("\n  ".join(lines))
            yield Text("\n\n".join(filter(None, [*shown, self.note])), overflow="fold")
            return
        if len(cells) > MOST_FRAMED:
            yield self._unframed(cells)
            return
        drawn = RichTable(title=self.title, title_justify="left", caption=self.note or None)
        if "\n" in self.note:
            drawn.caption_justify = "left"
        for column in self.columns:
            drawn.add_column(column.header, justify="right" if column.is_number else "left")
        for place, (row, texts) in enumerate(zip(self.rows, cells, strict=True), start=1):
            drawn.add_row(*texts, style=STYLES[self.look(row)], end_section=place in self.ends)
        yield drawn

    def _unframed(self, cells: list[list[str]]) -> "rich.text.Text":
        """Return the table as lines of cells flush below each other, however long they are."""
        from rich.cells import cell_len, set_cell_size
        from rich.text import Text

        columns = zip(self.headers, *cells, strict=True)
        widths = [max(map(cell_len, texts)) for texts in columns]
        numbers = [column.is_number for column in self.columns]

        def line(texts: list[str]) -> str:
            padded = (
                " " * (width - cell_len(text)) + text if flush else set_cell_size(text, width)
                for text, width, flush in zip(texts, widths, numbers, strict=True)
            )
            return "  ".join(padded).rstrip()

        shown = Text(f"{self.title}\n\n{line(self.headers)}\n", no_wrap=True, overflow="ignore")
        for row, texts in zip(self.rows, cells, strict=True):
            shown.append(f"{line(texts)}\n", STYLES[self.look(row)])
        return shown.append(self.note)

    def markdown(self, most: int | None = None) -> str:
        """Return the table as Markdown, and how many rows are left out beyond the first so many."""
        shown = self.part(0, most)
        lines = [self.headers, ["---"] * len(self.columns)]
        lines += [list(map(_escaped, self.columns, cells)) for cells in shown.cells]
        written = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        hidden = len(self.rows) - len(shown.rows)
        return f"{written}\n\nand {hidden} more" if hidden else written


def facts_table(title: str, facts: Iterable[tuple[str, str]]) -> Table:
    """Return a table of two columns, what is told and what was found; empty texts are left out."""
    rows = [fact for fact in facts if fact[1]]
    return Table(title, [Column("fact", 0), Column("found", 1)], rows)


def code(value: object) -> str:
    """Return a string as a code span of Markdown: nothing in one is a link, a picture or a tag."""
    line = _one_line(value)
    # A span ends at as many backticks as it began with, so begin with more than are inside. The
    # spaces are not shown; they keep a backtick at either end apart from those.
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{fence}{space}{line or ' '}{space}{fence}"


def fenced(value: str, language: str = "") -> str:
    """Return lines as a code block of Markdown, whatever they hold."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", value)), default=0))
    return f"{fence}{language}\n{value.rstrip()}\n{fence}"


def prose(value: object) -> str:
    """Return a string as running text: its own Markdown is shown and does nothing."""
    line = re.sub(r"([\\`*_\[\]<>&#|~!{}$^])", r"\\\1", _one_line(value))
    # What begins a list or a line, at the beginning alone: "1. ", "- ", "---".
    return re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=]))", r"\1\\", line)


def _escaped(column: Column, cell: str) -> str:
    """Return a cell for Markdown; what a unit has written of a number needs no care."""
    if column.is_number or not cell:
        return cell
    # Within a code span of a table a bar still parts cells, unless it is escaped.
    return code(cell).replace("|", "\\|") if column.unit is name else prose(cell)


def _one_line(value: object) -> str:
    """Return a string without line breaks, which could begin another kind of block."""
    line = " ".join(str(value).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
