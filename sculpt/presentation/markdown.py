"""A report for a pull request: Markdown, and its figures as PNG files beside it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sculpt.presentation.candidate_figures import (
    error_against_size,
    error_against_sparsity,
    pareto_front,
)
from sculpt.presentation.content import SHOWN_PROXIES, Content, collect
from sculpt.presentation.figures.drawing import Figure
from sculpt.presentation.figures.rendering import write_picture
from sculpt.presentation.interval_figures import confirmation_intervals, published_intervals
from sculpt.presentation.network_figures import learning_curves
from sculpt.results.formats import write_text, writing
from sculpt.results.records import Results
from sculpt.results.tables.ranking import (
    confirmation_table,
    proxies_table,
    published_tables,
    rival_tables,
    unranked_table,
)
from sculpt.table import Table, code, fenced, prose
from sculpt.units import describe_tally

SHOWN_ROWS = 12
"""Rows of each table; the page has the rest."""

FIGURES: dict[str, tuple[str, Callable[[Content], Figure | None]]] = {
    "errors": ("error against sparsity, with the spread of the base", error_against_sparsity),
    "sizes": ("error against parameters, beside dense networks of all sizes", error_against_size),
    "published": ("differences to the base beside the published ones", published_intervals),
    "confirmation": ("confirmed differences to the base", confirmation_intervals),
    "front": ("Pareto front", pareto_front),
    "curves": ("learning curves of the base and the best", learning_curves),
}


def write_markdown(results: Results, path: Path) -> list[Path]:
    """Write a study's report as Markdown, and its figures into a folder beside it.

    Returns:
        The files written: the text, then the figures in `NAME-figures/`.

    Raises:
        InputError: a file cannot be written.
    """
    content = collect(results)
    folder = path.with_name(f"{path.stem}-figures")
    with writing(path):
        pictures = _write_figures(content, folder)
        relative = {name: f"{folder.name}/{file.name}" for name, file in pictures.items()}
        write_text(describe(content, relative), path)
    return [path, *pictures.values()]


def describe(content: Content, pictures: dict[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        content: What is said.
        pictures: Paths of the figures that were drawn, by name.
    """
    blocks = [
        f"# {prose(content.study)}",
        f"**{prose(content.verdict.headline)}**",
        content.verdict.facts.markdown() if content.verdict.facts.rows else "",
        f"{prose(describe_tally(content.document['trials']))}, the base included.",
        *_picture(pictures, "errors", content.metric.name),
        *_picture(pictures, "sizes", content.metric.name),
        *_against_opponents(content),
        *_beside_published(content, pictures),
        *_confirmation(content),
        *_picture(pictures, "confirmation"),
        *_ranking(content),
        *_picture(pictures, "front"),
        *_unfinished(content),
        *_picture(pictures, "curves"),
        *_section(
            f"What foretold the {content.metric.name}",
            proxies_table(content.document),
            SHOWN_PROXIES,
        ),
        *_reproduction(content),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _write_figures(content: Content, folder: Path) -> dict[str, Path]:
    drawn = {name: draw(content) for name, (_, draw) in FIGURES.items()}
    known = {name: figure for name, figure in drawn.items() if figure}
    if known:
        folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.png" for name in known}
    for name, figure in known.items():
        write_picture(figure, files[name])
    return files


def _picture(pictures: dict[str, str], name: str, metric: str = "error") -> list[str]:
    # In angle brackets a path may have spaces and brackets.
    title = FIGURES[name][0].replace("error", metric)
    return [f"![{title}](<{pictures[name]}>)"] if name in pictures else []


def _section(title: str, table: Table | None, most: int | None = None) -> list[str]:
    if not table or not table.rows:
        return []
    return [f"## {title[0].upper()}{title[1:]}", table.markdown(most), prose(table.note)]


def _against_opponents(content: Content) -> list[str]:
    tables = rival_tables(content.document)
    return [text for table in tables for text in _section(table.title, table, SHOWN_ROWS)]


def _beside_published(content: Content, pictures: dict[str, str]) -> list[str]:
    tables = published_tables(content.document["published"])
    heading = ["## Beside the published figures", *_picture(pictures, "published")]
    shown = [text for table in tables for text in (table.markdown(SHOWN_ROWS), prose(table.note))]
    return heading + shown if tables else []


def _confirmation(content: Content) -> list[str]:
    found = content.document["confirmation"]
    table = confirmation_table(found, content.metric) if found and found["rows"] else None
    return _section(table.title, table) if table else []


def _ranking(content: Content) -> list[str]:
    # The base and opponents are shown wherever they stand.
    rows = content.ranking.rows
    shown = [row for row in rows if row["rank"] <= SHOWN_ROWS or row["role"] != "candidate"]
    hidden = len(rows) - len(shown)
    table = replace(content.ranking, rows=shown)
    return [*_section("Ranking", table), f"and {hidden} more" if hidden else ""]


def _unfinished(content: Content) -> list[str]:
    if not (rows := content.document["unranked"]):
        return []
    table = unranked_table(rows)
    return [
        f"<details><summary>{table.title}</summary>\n\n{table.markdown(SHOWN_ROWS)}\n\n</details>"
    ]


def _reproduction(content: Content) -> list[str]:
    found = content.reproduction
    file = f"<details><summary>{code(found.file)}</summary>"
    return [
        "## How to reproduce",
        fenced("\n".join(found.commands), "bash"),
        "\n".join(f"- {name}: {prose(fact)}" for name, fact in found.facts),
        f"{file}\n\n{fenced(found.yaml, 'yaml')}\n\n</details>",
    ]
