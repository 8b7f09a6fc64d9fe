"""JSON documents as tables for people: errors in percent, large numbers grouped."""

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
