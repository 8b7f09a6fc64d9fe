"""Verdict on a study: a headline, and facts that claim no more than intervals carry."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sculpt.results.against_published import AgainstPublished, Family, families_shown
from sculpt.results.confirmed_errors import Confirmation
from sculpt.results.dense_frontier import Cost, Worth
from sculpt.results.ranking import Ranking, RankRow
from sculpt.results.tables import configuration
from sculpt.results.tables.ranking import COSTS, TITLES, base_row, dense_cost, times_as_much
from sculpt.table import Table, facts_table
from sculpt.units import ERROR, Metric, count, counted

NAMED = 5
"""Candidates, or budgets, that have a fact each; the tables have the rest."""

CONFIRM = "sculpt run with --set 'search.confirm={top: 3, seeds: 8}'"
"""Command that confirms the best candidates of a study that has run."""

DIGITS = 12
"""To which mean errors, as fractions, are told apart."""

Row = Mapping[str, Any]
"""Row of a ranking or a confirmation: trial, params, kept_macs, errors, difference, verdict."""

Fact = tuple[str, str]
"""Subject and finding."""

CONTROLS = {"shuffled": "mask shuffled in layers", "erk": "random mask (ERK)"}
"""Controls of a confirmation, as they are named."""

MEANINGS = {
    "shuffled": {
        "worse": "which weights are kept within the layers matters here",
        "better": "its own mask is the worse one",
        "not distinguishable": "nothing here shows that it matters which weights are kept",
    },
    "erk": {
        "worse": "its mask is better than a random one of usual densities",
        "better": "its own mask is the worse one",
        "not distinguishable": "nothing here shows that its mask is better than a random one",
    },
}
"""What verdicts on a control mean for its candidate."""

RIVALS = {
    "dense": "against the best dense network of its size",
    "shuffled": "against its own mask, shuffled in layers",
    "erk": "against a random mask (ERK) on its network",
}
"""Opponents that candidates are compared with, beside the base."""


@dataclass(frozen=True)
class Verdict:
    """Headline and facts on a study."""

    headline: str
    facts: Table
    """A table of two columns, which may be empty."""


def verdict_of(document: Ranking) -> Verdict:
    """Return the verdict: by test errors on fresh seeds once the confirmation has compared any.

    Until then it is found by the validation errors that candidates are ranked by.
    """
    rows, found = document["ranking"], document["confirmation"]
    metric = Metric.of_document(document)
    base = next((row for row in rows if row["role"] == "base"), None)
    candidates = [row for row in rows if row["role"] == "candidate"]
    opponents = sum(row["role"] == "opponent" for row in rows)
    arms = found["rows"] if found else []
    confirmed = [row for row in arms if row["arm"] == "sculpted" and row["difference"]]
    if found and confirmed:
        headline, facts = _of_confirmation(found, confirmed, metric)
    elif base and candidates:
        headline, facts = _of_search(base, candidates, document, metric)
    elif candidates:
        headline = "The dense base has no result yet, so nothing is compared with it."
        lowest = _named(candidates[0], "val_error", metric)
        facts = [(f"lowest validation {metric.name}", lowest)]
    elif base:
        also = f" and {counted(opponents, 'opponent')} have" if opponents else " has"
        headline = f"Only the dense base{also} finished: no candidate can be compared with it yet."
        facts = [("dense base", metric.spread(base["val_error"]))]
    elif opponents:
        verb = "has" if opponents == 1 else "have"
        headline = f"Only {counted(opponents, 'opponent')} {verb} finished yet."
        facts = []
    else:
        headline, facts = "Nothing has finished yet, so there is nothing to compare.", []
    if opposed := document.get("opponents"):
        if not (found and confirmed):
            headline += _beside_dense(opposed, f"by validation {metric.name}")
        facts += _of_opponents(opposed, metric)
    headline += _in_dense_parameters(document, metric)
    facts += _of_frontier(document, metric)
    facts += _of_published(document["published"])
    if metric != ERROR:
        facts.append(("metric of this study", f"{metric.name}; lower is better"))
    if diverged := sum(1 for row in rows if row["diverged"]):
        whose = counted(diverged, "finished trial")
        facts.append(("seeds diverged", f"of {whose}; their {metric.plural} count as they are"))
    return Verdict(headline, facts_table("What was found", facts))


def _of_search(
    base: RankRow, candidates: list[RankRow], document: Ranking, metric: Metric
) -> tuple[str, list[Fact]]:
    """Tell of validation errors; candidates are in the order of the ranking."""
    compared = [row for row in candidates if row["difference"]]
    if compared:
        headline = _tally(compared, f"by validation {metric.name}")
    elif base["val_error"]["n"] < 2:
        headline = "With a single seed each, no difference from the base can be told from chance."
    else:
        headline = "No candidate can be compared with the base seed by seed."
    facts = [*_compared(compared, f"validation {metric.plural}", len(compared))]
    facts.append(("dense base", metric.spread(base["val_error"])))
    leading = _best_of_budgets(candidates)
    for row in leading[:NAMED]:
        where = f" with {count(row['budget'])} parameters" if len(leading) > 1 else ""
        lowest = _named(row, "val_error", metric)
        facts.append((f"lowest validation {metric.name}{where}", lowest))
    if len(leading) > NAMED:
        facts.append((counted(len(leading) - NAMED, "more budget"), "in the ranking"))
    facts += _cheap(base, candidates, "val_error", metric)
    if not compared:
        facts.append(("to compare", "a new study with search.replicates of 3 or more"))
    elif document["confirmation"]:
        facts.append(("confirmation", "the best are being trained on fresh seeds, and the base"))
    else:
        luck = (
            f"candidates were ranked by these {metric.plural}, so the best of them is best by "
            "luck, too"
        )
        facts.append(("to confirm", f"{luck}; train it again on fresh seeds by {CONFIRM}"))
    return headline, facts


def _of_confirmation(
    found: Confirmation, rows: Sequence[Row], metric: Metric
) -> tuple[str, list[Fact]]:
    """Tell of test errors on fresh seeds; `rows` are sculpted ones that have been compared."""
    selected, base = len(found["selected"]), base_row(found)
    told = Counter(row["verdict"] for row in rows)
    headline = (
        f"Of {counted(selected, 'candidate')} confirmed on {found['seeds']} fresh seeds, "
        f"{told['better'] or 'none'} can be told to have a lower test {metric.name} than the dense "
        "base" + (f", and {told['worse']} a higher one." if told["worse"] else ".")
    )
    against_dense = found.get("against_dense", [])
    headline += _beside_dense(against_dense, f"by test {metric.name}")
    facts = [*_compared(rows, f"test {metric.plural} on fresh seeds", selected)]
    if not found["complete"]:
        facts.append(("not complete yet", "verdicts that stand will stay, others may come"))
    facts.append(("dense base", metric.spread(base["test_error"])))
    facts += [(f"trial {row['trial']}", _named(row, "test_error", metric)) for row in rows[:NAMED]]
    facts += _cheap(base, rows, "test_error", metric)
    for opposed in [row for row in against_dense if row["difference"]][:NAMED]:
        subject = f"trial {opposed['trial']}, against {opposed['against']}"
        facts.append((subject, f"{_difference(opposed, metric)}: {opposed['verdict']}"))
    for arm, what in CONTROLS.items():
        controls: list[Row] = [
            row for row in found["rows"] if row["arm"] == arm and row["difference"]
        ]
        for row in controls[:NAMED]:
            meaning = MEANINGS[arm].get(row["verdict"] or "", "nothing can be said")
            against = f"{_difference(row, metric)} from itself: {row['verdict']}"
            facts.append((f"trial {row['trial']}, {what}", f"{against}, so {meaning}"))
    return headline, facts


def _beside_dense(rows: Sequence[Row], by: str) -> str:
    """Return a sentence for the headline: how many differ from the best dense network of a size."""
    compared = [row for row in rows if row["difference"] and row.get("arm", "dense") == "dense"]
    if not compared:
        return ""
    told = Counter(row["verdict"] for row in compared)
    names = dict.fromkeys("the base" if r["against"] == "base" else r["against"] for r in compared)
    return (
        f" Against the best dense network of this size ({'; '.join(names)}), "
        f"{told['better'] or 'none'} of {len(compared):,} can be told to be better {by}"
        + (f", and {told['worse']} to be worse." if told["worse"] else ".")
    )


def _of_opponents(rows: Sequence[Row], metric: Metric) -> list[Fact]:
    """Tell of the best candidates against opponents, by validation errors."""
    facts = []
    for arm, what in RIVALS.items():
        compared = [row for row in rows if row["arm"] == arm and row["difference"]]
        if not compared:
            continue
        told = ", ".join(
            f"{number} {verdict}"
            for verdict, number in Counter(row["verdict"] for row in compared).items()
        )
        best = compared[0]
        rival = "the base" if best["against"] == "base" else best["against"]
        first = f"trial {best['trial']} {_difference(best, metric)} from {rival}"
        corrected = f"corrected for {counted(len(compared), 'comparison')}"
        facts.append((what, f"{told} by validation {metric.plural}, {corrected}; {first}"))
    return facts


def _best_worth(document: Ranking) -> dict[Cost, Worth]:
    """Return what the best candidate is worth in dense networks, by cost."""
    worth = document["frontier"]["worth"] if "frontier" in document else []
    return {row["cost"]: row for row in reversed(worth)}


def _in_dense_parameters(document: Ranking, metric: Metric) -> str:
    """Return a sentence for the headline: the size of a dense network that does as well."""
    row = _best_worth(document).get("kept_parameters")
    if row is None:
        return ""
    return (
        f" A dense network of the same validation {metric.name} as trial {row['trial']} has "
        f"{times_as_much(row)} times its parameters."
    )


def _of_frontier(document: Ranking, metric: Metric) -> list[Fact]:
    """Tell what the best candidate is worth in dense networks, by each cost."""
    best = _best_worth(document)
    facts = []
    for cost, (what, _) in COSTS.items():
        if row := best.get(cost):
            found = f"trial {row['trial']}: {dense_cost(row)}, {times_as_much(row)} times its own"
            facts.append((f"{what} of a dense network of the same {metric.name}", found))
    return facts


def _difference(row: Row, metric: Metric) -> str:
    return f"{metric.difference(row['difference'])}{metric.points}"


def _tally(compared: Sequence[Row], by: str) -> str:
    """Return the headline: how many candidates differ from the base."""
    told, whole = Counter(row["verdict"] for row in compared), len(compared)
    better, worse = told["better"], told["worse"]
    if better:
        verb = "is" if better == 1 else "are"
        return f"{better} of {counted(whole, 'candidate')} {verb} better than the dense base {by}."
    if not worse:
        whom = "The candidate cannot" if whole == 1 else f"None of {whole:,} candidates can"
        return f"{whom} be told from the dense base {by}."
    if worse < whole:
        return f"None of {whole:,} candidates is better than the dense base {by}."
    whom = "The candidate is" if whole == 1 else f"All {whole:,} candidates are"
    return f"{whom} worse than the dense base {by}."


def _compared(rows: Sequence[Row], what: str, family: int) -> list[Fact]:
    """Tell of what verdicts there are, and how they are to be read."""
    if not rows:
        return []
    told = Counter(row["verdict"] for row in rows)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in told.items())
    corrected = f"{counts} by {what}, corrected for {counted(family, 'comparison')}"
    return [
        ("compared with the base", corrected),
        (
            "how to read it",
            "brackets hold each difference's own 95 % interval, the differences that remain "
            "possible: not to be told apart is not to be equal, and once corrected, a difference "
            "may not be distinguishable though its own interval leaves out zero",
        ),
    ]


def _named(row: Row, kind: str, metric: Metric) -> str:
    """Return which trial it is, its error and what is said of its difference from the base."""
    who = f"trial {row['trial']} ({configuration(row['params'])}): {metric.spread(row[kind])}"
    if row["difference"] is None:
        return who
    return f"{who}, {_difference(row, metric)} from the base: {row['verdict']}"


def _cheap(base: Row, rows: Sequence[Row], kind: str, metric: Metric) -> list[Fact]:
    """Tell of what is won at no more MACs than the base, and at no more parameters and latency.

    Parameters are left out where no candidate has more, latency where it was not measured.
    """
    facts = []
    costs = {"kept_parameters": "parameters", "kept_macs": "MACs", "latency": "latency"}
    for cost, what in costs.items():
        known = [row for row in rows if row.get(cost) is not None]
        if base.get(cost) is None or not known:
            continue
        cheap = [row for row in known if row[cost] <= base[cost]]
        if cost != "kept_parameters" or len(cheap) < len(known):
            facts += _at_no_more(what, cheap, known, kind, metric)
    return facts


def _at_no_more(
    what: str, cheap: Sequence[Row], rows: Sequence[Row], kind: str, metric: Metric
) -> list[Fact]:
    better = [row for row in cheap if row["verdict"] == "better"]
    text = f"{len(cheap) or 'none'} of {counted(len(rows), 'candidate')}"
    if any(row["difference"] for row in cheap):
        names = ", ".join(f"trial {row['trial']}" for row in better[:NAMED])
        more = f" and {len(better) - NAMED} more" if len(better) > NAMED else ""
        text += f"; told to be better: {names or 'none'}{more}"
    # The confirmed ones have a fact each, and are in no order of their test errors.
    best = cheap[:1] if kind == "val_error" else []
    lowest = [(f"lowest {metric.name} of these", _named(row, kind, metric)) for row in best]
    return [(f"no more {what} than the base", text), *lowest]


def _of_published(found: AgainstPublished | None) -> list[Fact]:
    """Tell whether the signs of published differences are found again.

    A sign is no more than a sign: what an interval that holds zero leaves open is said beside it.
    """
    rows = [
        row
        for row in (found["rows"] if found else [])
        if row["role"] == "candidate" and row["published"] and row["published"]["difference"]
    ]
    if found is None or not rows:
        return []
    if all(row["trial"] is None for row in rows):
        return [("published signs", f"none of {counted(len(rows), 'published row')} has finished")]
    finished = [row for row in rows if row["trial"] is not None]
    return [
        (f"published signs, {TITLES[family]}", _signs(finished, family, found["compared"]))
        for family in families_shown(found)
    ]


def _signs(rows: Sequence[Row], family: Family, compared: int) -> str:
    known = [row for row in rows if row[family] and row[family]["difference"]]
    whom = f"{counted(len(rows), 'published row')} that finished here"
    if not known:
        return f"none of {whom} can be compared with the base"
    # What the subtraction of mean errors left where there is no difference has no sign.
    signs = [
        round(row[family]["difference"]["mean"], DIGITS) * row["published"]["difference"]
        for row in known
    ]
    told = [row[family]["verdict"] in ("better", "worse") for row in known]
    same = sum(sign > 0 for sign in signs)
    same_told = sum(sign > 0 and is_told for sign, is_told in zip(signs, told, strict=True))
    other_told = sum(sign < 0 and is_told for sign, is_told in zip(signs, told, strict=True))
    text = f"{same or 'none'} of {whom} with the published sign"
    text += f", {same_told or 'none'} of these told from the base" if same else ""
    text += f"; {other_told} with the other sign told from it" if other_told else ""
    missing = len(rows) - len(known)
    text += f"; {missing} cannot be compared" if missing else ""
    return f"{text} (corrected for {counted(compared, 'comparison')})"


def _best_of_budgets(candidates: Sequence[RankRow]) -> list[RankRow]:
    """Return the best candidate of each sampled budget, smallest first; else the best alone."""
    if not any("budget" in row["params"] for row in candidates):
        return [candidates[0]]  # one budget; or a share of each network, which are not compared
    best: dict[int, RankRow] = {}
    for row in candidates:
        best.setdefault(row["budget"], row)
    return [best[budget] for budget in sorted(best)]
