"""A report for a pull request: Markdown, and its figures as PNG files beside it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sculpt.errors import InputError
from sculpt.files import replacing
from sculpt.results.markdown import code, fenced, prose
from sculpt.results.numbers import duration, percent, points, short
from sculpt.results.records import Results
from sculpt.results.report.content import Content, collect
from sculpt.results.report.curve_figures import learning_curves
from sculpt.results.report.drawing import Figure
from sculpt.results.report.error_figures import error_against_sparsity
from sculpt.results.report.front_figure import pareto_front
from sculpt.results.report.interval_figures import confirmation_intervals, published_intervals
from sculpt.results.report.pictures import write_picture
from sculpt.results.tables import describe_tally
from sculpt.results.tables.published import published_texts

SHOWN_ROWS = 12
"""Of each table; the page has the rest."""

FIGURES: dict[str, tuple[str, Callable[[Content], Figure | None]]] = {
    "errors": ("error against sparsity, with the spread of the base", error_against_sparsity),
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
    content = collect(results.snapshot())
    folder = path.with_name(f"{path.stem}-figures")
    try:
        pictures = _write_figures(content, folder)
        relative = {name: f"{folder.name}/{file.name}" for name, file in pictures.items()}
        with replacing(path) as part:
            part.write_text(describe(content, relative), encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"the report must go to a file that can be written, but got {path} "
            f"({error.strerror or error}); give another with --output"
        ) from error
    return [path, *pictures.values()]


def describe(content: Content, pictures: dict[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        content:
            What is said.
        pictures:
            Paths of the figures that were drawn, by name.
    """
    headline, *others = content.verdict
    blocks = [
        f"# {prose(content.study)}",
        f"**{prose(headline)}**",
        _listed(others),
        f"{prose(describe_tally(content.document['trials']))}, the base included.",
        *_picture(pictures, "errors"),
        *_beside_published(content, pictures),
        *_confirmation(content),
        *_picture(pictures, "confirmation"),
        *_ranking(content),
        *_picture(pictures, "front"),
        *_unfinished(content),
        *_picture(pictures, "curves"),
        *_proxies(content),
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


def _picture(pictures: dict[str, str], name: str) -> list[str]:
    # In angle brackets a path may have spaces and brackets.
    return [f"![{FIGURES[name][0]}](<{pictures[name]}>)"] if name in pictures else []


def _beside_published(content: Content, pictures: dict[str, str]) -> list[str]:
    tables = published_texts(content.document["published"])
    if not tables:
        return []
    blocks = ["## Beside the published figures", *_picture(pictures, "published")]
    for beside in tables:
        shown = [[prose(cell) for cell in row] for row in beside.rows[:SHOWN_ROWS]]
        blocks.append(_table([name.removeprefix(">") for name in beside.header], shown))
        if hidden := len(beside.rows) - len(shown):
            blocks.append(f"and {hidden} more")
        blocks.append(prose(beside.note))
    return blocks


def _confirmation(content: Content) -> list[str]:
    found = content.document["confirmation"]
    if not found or not found["rows"]:
        return []
    rows = [
        [
            f"{row['trial']}" + (", shuffled" if row["arm"] == "shuffled" else ""),
            prose(_named(content, row["trial"])),
            percent(row["test_error"]),
            points(row["difference"]),
            "the base" if row["against"] == "base" else f"trial {row['against']}",
            row["verdict"] or "",
        ]
        for row in found["rows"]
    ]
    base = found["base"]
    rows.insert(0, ["base", "", percent(base["test_error"]) if base else "", "", "", ""])
    header = ["trial", "parameters", "test error", "difference in points", "against", "verdict"]
    return [f"## Confirmation on {found['seeds']} fresh seeds", _table(header, rows)]


def _ranking(content: Content) -> list[str]:
    header = ["rank", "trial", "parameters", "validation error", "difference in points"]
    header += ["verdict", "kept", "sparsity", "kept MACs", "seconds"]
    rows = [
        [
            str(trial["rank"]),
            str(trial["trial"]),
            prose(trial["params"]),
            percent(trial["val"]),
            points(trial["difference"]),
            trial["verdict"],
            f"{trial['kept_parameters']:,}",
            f"{trial['sparsity']:.2%}",
            short(trial["kept_macs"]),
            f"{trial['seconds']:.1f}",
        ]
        for trial in content.trials
        if trial["rank"] <= SHOWN_ROWS or trial["role"] == "base"
    ]
    if not rows:
        return []
    hidden = len(content.trials) - len(rows)
    return ["## Ranking", _table(header, rows), f"and {hidden} more" if hidden else ""]


def _unfinished(content: Content) -> list[str]:
    ended = [t for t in content.unfinished if t["state"] in ("stopped", "failed", "infeasible")]
    if not ended:
        return []
    counted = Counter(trial["state"] for trial in ended)
    summary = ", ".join(f"{count} {state}" for state, count in counted.items())
    rows = [
        [str(t["trial"]), t["state"], prose(t["params"]), prose(t["reason"])]
        for t in ended[:SHOWN_ROWS]
    ]
    table = _table(["trial", "state", "parameters", "why"], rows)
    more = f"\n\nand {len(ended) - SHOWN_ROWS} more" if len(ended) > SHOWN_ROWS else ""
    return [
        f"<details><summary>Without a result: {summary}</summary>\n\n{table}{more}\n\n</details>"
    ]


def _proxies(content: Content) -> list[str]:
    if not content.proxies:
        return []
    rows = [
        [code(row["proxy"]), f"{row['rho']:+.2f}", f"{row['p']:.2g}", str(row["n"])]
        for row in content.proxies
    ]
    return [
        "## What foretold the error",
        _table(["proxy", "Spearman's ρ", "p, of it alone", "n"], rows),
    ]


def _reproduction(content: Content) -> list[str]:
    found = content.reproduction
    facts = [
        f"data {code(found['data'])}, fingerprint {', '.join(map(code, found['fingerprints']))}",
        f"seeds {'; '.join(found['seeds'])}",
        f"budget {prose(found['budget'])}, counting rule {found['counting']}",
        f"device {'; '.join(map(prose, found['devices']))}",
        f"versions {'; '.join(map(prose, found['versions']))}",
        f"{duration(found['seconds'])} in all",
    ]
    file = f"<details><summary>{code(found['file'])}</summary>"
    return [
        "## How to reproduce",
        fenced("\n".join(found["commands"]), "bash"),
        _listed(facts, escape=False),
        f"{file}\n\n{fenced(found['yaml'], 'yaml')}\n\n</details>",
    ]


def _named(content: Content, trial: int | str) -> str:
    return next((t["params"] for t in content.trials if t["trial"] == trial), "")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _listed(lines: Iterable[str], escape: bool = True) -> str:
    return "\n".join(f"- {prose(line) if escape else line}" for line in lines)
