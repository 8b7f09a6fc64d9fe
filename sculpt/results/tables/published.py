"""Measured differences beside published ones: tables of text, for a terminal, a page, Markdown."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sculpt.results.numbers import percent, points, short, signed
from sculpt.results.tables import how_judged, new_table
from sculpt.results.verdict_published import families_shown
from sculpt.results.wording import configuration

TITLES = {
    "lowest_test": "lowest test error",
    "selected_test": "test error, selected by validation",
    "val": "validation error",
}
PROTOCOLS = {
    "lowest_test": "Lowest test error of all evaluations of each seed, the published protocol: the "
    "test images choose it, so it is optimistic, and for comparing only",
    "selected_test": "Test error of each seed at the evaluation with its lowest validation error, "
    "the earliest at ties: validation images choose it",
    "val": "The test images were not read in this study, so published test errors have validation "
    "errors beside them",
}


@dataclass(frozen=True)
class Beside:
    """One kind of measured errors beside the published ones, as text."""

    family: str
    title: str
    header: list[str]
    """Columns whose name begins with > are flush right."""
    rows: list[list[str]]
    """The base comes first."""
    note: str


def published_texts(found: dict[str, Any] | None) -> list[Beside]:
    """Return a table of text for each kind of errors that stands beside published ones.

    Args:
        found:
            Of `sculpt.results.against_published.against_published`.
    """
    return [_beside(found, family) for family in families_shown(found)] if found else []


def published_tables(found: dict[str, Any] | None) -> list[Table]:
    """Show the same for a terminal."""
    tables = []
    for beside in published_texts(found):
        table = new_table(beside.title, *beside.header)
        for row in beside.rows:
            table.add_row(*row, style="bold" if row is beside.rows[0] else None)
        table.caption = beside.note
        tables.append(table)
    return tables


def _beside(found: dict[str, Any], family: str) -> Beside:
    title = TITLES[family]
    kind = title.split(",")[0]
    header = ["trial", "parameters", ">published", ">published difference", f">{kind}"]
    header += [">difference in points", "against the base", ">kept MACs"]
    note = [f"Published: {found['source']}.", f"{PROTOCOLS[family]}."]
    made = [row[family]["difference"] for row in found["rows"] if row[family]]
    if compared := [difference for difference in made if difference]:
        text = how_judged(compared, f"{kind}s", found["compared"])
        note.append(f"{text[0].upper()}{text[1:]}.")
    if unread := found["unread"] if family == "selected_test" else []:
        note.append(f"Trials whose records cannot be read: {', '.join(map(str, unread))}.")
    return Beside(
        family=family,
        title=f"beside the published figures: {title}",
        header=header,
        rows=[_cells(row, family, row["trial"] in found["unread"]) for row in found["rows"]],
        note=" ".join(note),
    )


def _cells(row: dict[str, Any], family: str, unread: bool) -> list[str]:
    published, measured = row["published"], row[family]
    difference = published and published["difference"]
    if row["trial"] is None:
        verdict = "to come"
    elif measured is None:
        verdict = "record not read" if unread else "not known"
    else:
        verdict = measured["verdict"] or "base not known"
    return [
        "–" if row["trial"] is None else str(row["trial"]),
        configuration(row["params"]),
        f"{100 * published['test_error']:.4g} %" if published else "",
        "" if difference is None else signed(100 * difference),
        percent(measured),
        points(measured and measured["difference"]),
        verdict,
        "" if row["kept_macs"] is None else short(row["kept_macs"]),
    ]
