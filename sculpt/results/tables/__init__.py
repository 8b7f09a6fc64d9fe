"""JSON documents as tables for people: errors in percent, large numbers grouped."""

from typing import Any

from rich.table import Table


def describe_tally(tally: dict[str, int]) -> str:
    """Return the counts of a study's trials as one line."""
    shown = [f"{tally['complete']} of {tally['total']} trials complete"]
    shown += [
        f"{count} {state}"
        for state, count in tally.items()
        if state not in ("total", "complete") and count
    ]
    return ", ".join(shown)


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table; columns whose name begins with > are flush right."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left")
    return table


def how_judged(compared: list[dict[str, Any]], what: str, count: int) -> str:
    """Return how differences were judged: those that were made, of what, over how many."""
    methods = sorted({difference["method"] for difference in compared})
    names = {"bootstrap": "bootstrap-t", "student": "Student's t"}
    return (
        f"difference of {what}, paired by seed, with its own 95 % interval "
        f"({', '.join(names[method] for method in methods)}); verdict: Holm-corrected over "
        f"{count} candidate{'s' * (count > 1)}, 95 %"
    )
