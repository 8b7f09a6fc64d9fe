"""Tables of a ranking, its confirmation, published rows and proxies."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group

from sculpt import units
from sculpt.config import Params
from sculpt.results.against_published import (
    AgainstPublished,
    Family,
    PublishedRow,
    families_shown,
)
from sculpt.results.confirmed_errors import Confirmation
from sculpt.results.dense_frontier import Cost, Worth
from sculpt.results.proxies import ProxyRow
from sculpt.results.ranking import Ranking, RankRow, UnrankedRow
from sculpt.results.tables import PARAMETERS, how_judged
from sculpt.table import LONGEST, Column, Look, Table, name
from sculpt.units import Error, Metric, describe_tally

KEPT = Column("kept", "kept_parameters", units.count)
KEPT_MACS = Column("kept MACs", "kept_macs", units.macs)

SHOWN_PROXIES = 8
SHOWN_OPPOSED = 15
SHOWN_UNRANKED = 10
SHOWN_WORTH = 5
"""Candidates, the best ones."""

COSTS: dict[Cost, tuple[str, Callable[[float], str]]] = {
    "kept_parameters": ("parameters", units.count),
    "kept_macs": ("MACs", units.macs),
    "latency": ("latency", units.milliseconds),
}
"""Costs of a network: their names, and how they are written."""

TITLES: dict[Family, str] = {
    "lowest_test": "lowest test error",
    "selected_test": "test error, selected by validation",
    "val": "validation error",
}
RIVALS = {
    "dense": "best dense network of its size",
    "shuffled": "own mask, shuffled in layers",
    "erk": "random mask (ERK)",
}
PROTOCOLS: dict[Family, str] = {
    "lowest_test": "Lowest test error of all evaluations of each seed, the published protocol: the "
    "test images choose it, so it is optimistic, and for comparing only",
    "selected_test": "Test error of each seed at the evaluation with its lowest validation error, "
    "the earliest at ties: validation images choose it",
    "val": "The test images were not read in this study, so published test errors have validation "
    "errors beside them",
}


def ranking_tables(document: Ranking) -> Group:
    """Show all that `sculpt.results.ranking.rank` says."""
    tables = [ranking_table(document)]
    if unranked := document["unranked"]:
        table = unranked_table(unranked)
        hidden = len(unranked) - SHOWN_UNRANKED
        note = f"and {hidden} more: --json has all" if hidden > 0 else ""
        tables.append(Table(table.title, table.columns, unranked[:SHOWN_UNRANKED], note))
    tables += [table.part(0, SHOWN_OPPOSED) for table in rival_tables(document)]
    if document["confirmation"]:
        tables.append(confirmation_table(document["confirmation"], Metric.of_document(document)))
    tables += published_tables(document["published"])
    if proxies := proxies_table(document):
        tables.append(proxies.part(0, SHOWN_PROXIES))
    return Group(*tables)


def ranking_table(
    document: Ranking, tests: Mapping[int | str, Error | None] | None = None
) -> Table:
    """Return a ranking.

    Args:
        document: Of `sculpt.results.ranking.rank`.
        tests: Test errors of trials, if their column is shown: the lowest of all evaluations.
    """
    rows, metric = document["ranking"], Metric.of_document(document)
    compared = [
        row["difference"] for row in rows if row["difference"] and row["role"] == "candidate"
    ]
    columns = [
        Column("rank", "rank", units.count),
        Column("trial", "trial"),
        PARAMETERS,
        Column(f"validation {metric.name}", "val_error", metric.spread),
    ]
    if tests is not None:
        title = f"lowest test {metric.name}"
        columns.append(Column(title, lambda row: tests[row["trial"]], metric.spread))
    if several_budgets(document):
        columns.append(Column("budget", "budget", units.count))
    columns += [KEPT, Column("sparsity", "sparsity", units.share), KEPT_MACS]
    if any(row["difference"] for row in rows):
        columns.append(Column(metric.title, "difference", metric.difference))
    columns += [Column("against the base", _verdict), Column("seconds", "seconds", units.seconds)]
    return Table(
        f"{document['study']}: {describe_tally(document['trials'])}",
        columns,
        rows,
        how_judged(compared, f"validation {metric.plural}", len(compared)),
        _look,
    )


def several_budgets(document: Ranking) -> bool:
    """Tell studies with several budgets, whose candidates keep different numbers.

    MACs are one budget, whatever number of parameters takes them.
    """
    candidates = [row for row in document["ranking"] if row["role"] == "candidate"]
    return "macs" not in document and len({row["budget"] for row in candidates}) > 1


def rival_tables(document: Ranking) -> list[Table]:
    """Return the tables on opponents: candidates against them, and on the dense frontier."""
    return list(filter(None, [opponents_table(document), worth_table(document)]))


def opponents_table(document: Ranking) -> Table | None:
    """Return candidates against opponents, if any have been compared."""
    metric, rows = Metric.of_document(document), document.get("opponents")
    columns = [
        Column("trial", "trial"),
        Column("against", "against"),
        Column("as", lambda row: RIVALS[row["arm"]]),
        Column(metric.title, "difference", metric.difference),
        Column("verdict", "verdict"),
    ]
    note = "by arm, each corrected for all of its comparisons"
    return Table("against the opponents", columns, rows, note) if rows else None


def worth_table(document: Ranking) -> Table | None:
    """Return what the best candidates are worth on the dense frontier, if there is one."""
    worth = document["frontier"]["worth"] if "frontier" in document else []
    if not worth:
        return None
    metric = Metric.of_document(document)
    best = list(dict.fromkeys(row["trial"] for row in worth))[:SHOWN_WORTH]
    columns = [
        Column("trial", "trial"),
        Column("in", lambda row: COSTS[row["cost"]][0]),
        Column("its own", lambda row: COSTS[row["cost"]][1](row["own"])),
        Column(f"a dense network of its {metric.name}", dense_cost),
        Column("times as much", times_as_much),
    ]
    note = (
        f"by validation {metric.plural}, interpolated between the best dense networks; in brackets "
        "the 95 % interval of each alone, paired by seed, Student's t; … where it goes on beyond "
        "the networks that were trained"
    )
    rows = [row for row in worth if row["trial"] in best]
    return Table("against dense networks of all sizes", columns, rows, note)


def dense_cost(row: Worth) -> str:
    """Return what a dense network of a candidate's error costs, with its interval."""
    return _with_ends(row, COSTS[row["cost"]][1], 1.0)


def times_as_much(row: Worth) -> str:
    """Return the same as a multiple of the candidate's own cost."""
    return _with_ends(row, "{:.3g}".format, row["own"])


def _with_ends(row: Worth, written: Callable[[float], str], unit: float) -> str:
    low, high = ("…" if end is None else written(end / unit) for end in (row["low"], row["high"]))
    sign = {"above": "> ", "below": "< ", None: ""}[row["beyond"]]
    return f"{sign}{written(row['dense'] / unit)} [{low}, {high}]"


def unranked_table(rows: Sequence[UnrankedRow]) -> Table:
    """Return trials that ended without a result, and why."""
    states = Counter(row["state"] for row in rows)
    columns = [
        Column("trial", "trial"),
        Column("state", "state"),
        PARAMETERS,
        Column("seconds", "seconds", units.seconds),
        Column("why", lambda row: (row["error"] or "interrupted too often")[:LONGEST]),
    ]
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    return Table(f"not ranked: {counts}", columns, rows)


def confirmation_table(found: Confirmation, metric: Metric = units.ERROR) -> Table:
    """Return a confirmation, the base first, then candidates as they were selected."""
    columns = [
        Column("trial", "trial"),
        Column("mask", "arm"),
        PARAMETERS,
        Column(f"validation {metric.name}", "val_error", metric.spread),
        Column(f"test {metric.name}", "test_error", metric.spread),
        KEPT,
        KEPT_MACS,
        Column(metric.title, "difference", metric.difference),
        Column("against", "against"),
        Column("verdict", lambda row: row["verdict"] or "to come"),
    ]
    rows: list[Any] = list(found["rows"])
    rows[:0] = [{**row, "arm": "dense", "against": "base"} for row in found.get("dense", [])]
    if found["base"]:
        rows.insert(0, base_row(found))
    title = f"confirmation on {found['seeds']} fresh seeds"
    compared = [row["difference"] for row in found["rows"] if row["difference"]]
    return Table(
        title + ("" if found["complete"] else ", not complete yet"),
        columns,
        rows,
        how_judged(compared, f"test {metric.plural}", len(found["selected"])),
        _look,
    )


def base_row(found: Confirmation) -> Mapping[str, Any]:
    """Return the base of a confirmation as its other rows are."""
    words: Params = dict.fromkeys(("arm", "params", "difference", "against"))
    return {"trial": "base", **words, "verdict": "base", **(found["base"] or {})}


def published_tables(found: AgainstPublished | None) -> list[Table]:
    """Return a table for each kind of errors that stands beside published ones; the base first."""
    return [_published_table(found, family) for family in families_shown(found)] if found else []


def _published_table(found: AgainstPublished, family: Family) -> Table:
    kind = TITLES[family].split(",")[0]

    def verdict(row: PublishedRow) -> str:
        measured = row[family]
        if row["trial"] is None:
            return "to come"
        if measured is None:
            return "record not read" if row["trial"] in found["unread"] else "not known"
        return measured["verdict"] or "base not known"

    columns = [
        Column("trial", lambda row: "–" if row["trial"] is None else row["trial"]),
        PARAMETERS,
        Column("published", lambda row: _of(row["published"], "test_error"), _four_digits),
        Column("published difference", lambda row: _of(row["published"], "difference"), _points),
        Column(kind, family, units.error),
        Column("difference in points", lambda row: _of(row[family], "difference"), units.points),
        Column("against the base", verdict),
        KEPT_MACS,
    ]
    made = [measured["difference"] for row in found["rows"] if (measured := row[family])]
    compared = [difference for difference in made if difference]
    how = how_judged(compared, f"{kind}s", found["compared"])
    notes = [f"Published: {found['source']}", PROTOCOLS[family], how[:1].upper() + how[1:]]
    if family == "selected_test" and (unread := found["unread"]):
        notes.append(f"Trials whose records cannot be read: {', '.join(map(str, unread))}")
    note = " ".join(f"{note}." for note in notes if note)
    title = f"beside the published figures: {TITLES[family]}"
    return Table(title, columns, found["rows"], note, _look)


def proxies_table(document: Ranking) -> Table | None:
    """Return the proxies that a correlation is known of, the strongest first, if there are any."""
    known: list[ProxyRow] = [row for row in document["proxies"] if row["rho"] is not None]
    columns = [
        Column("proxy", "proxy", name),
        Column("rho", "rho", "{:+.2f}".format),
        Column("p", "p", "{:.2g}".format),
        Column("n", "n", units.count),
    ]
    note = f"Spearman; p of each alone, of {len(known)}"
    note += "; all budgets together" if several_budgets(document) else ""
    title = f"rank correlation with the {Metric.of_document(document).name}"
    return Table(title, columns, known, note) if known else None


def _verdict(row: RankRow) -> str:
    return row["verdict"] + (f" ({row['diverged']} diverged)" if row["diverged"] else "")


def _look(row: Mapping[str, Any]) -> Look:
    return "base" if row["trial"] == "base" else ""


def _of(row: Mapping[str, Any] | None, key: str) -> Any:
    return row and row[key]


def _four_digits(error: float) -> str:
    """Return a published error with as many digits as are published."""
    return f"{100 * error:.4g} %"


def _points(difference: float) -> str:
    return units.signed(100 * difference)
