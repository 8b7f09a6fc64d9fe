"""What a study's ranking says, in sentences that claim no more than its intervals carry."""

from collections.abc import Sequence
from typing import Any

from sculpt.results.numbers import percent, points
from sculpt.results.verdict_cost import confirmed_cost_sentence, cost_sentences
from sculpt.results.verdict_published import published_sentences
from sculpt.results.wording import NAMED, counted, have, named, uncorrected, with_verdict

CONFIRM = "--set 'search.confirm={top: 3, seeds: 8}'"
"""What makes `sculpt run` confirm the best candidates of a study that has run."""


def verdict_sentences(document: dict[str, Any]) -> list[str]:
    """Return plain sentences, the headline first.

    They are about test errors on fresh seeds once the confirmation has compared anything, and
    about validation errors until then; then about published differences, if the study has any.

    Args:
        document:
            Of `sculpt.results.ranking.rank`.
    """
    rows = document["ranking"]
    base = next((row for row in rows if row["role"] == "base"), None)
    candidates = [row for row in rows if row["role"] == "candidate"]
    if not rows:
        return ["Nothing has finished yet, so there is nothing to compare."]
    if not candidates:
        found = percent(base["val_error"]) if base else ""
        return [
            f"Only the dense base has finished, with {found} validation error: "
            "no candidate can be compared with it yet."
        ]
    confirmation = document["confirmation"]
    confirmed = [
        row
        for row in (confirmation["rows"] if confirmation else [])
        if row["arm"] == "sculpted" and row["difference"]
    ]
    beside = published_sentences(document["published"])
    if confirmed:
        return _of_confirmation(confirmation, confirmed) + beside
    sentences = _of_ranking(base, candidates) + cost_sentences(base, candidates) + beside
    if confirmation:
        sentences.append(
            "The best candidates are being confirmed on fresh seeds; until a candidate and the "
            "base have both finished there, this is what the search itself showed."
        )
    elif base:
        sentences.append(_best_by_luck(len(candidates)))
    if diverged := sum(1 for row in rows if row["diverged"]):
        trials = "1 finished trial has" if diverged == 1 else f"{diverged} finished trials have"
        sentences.append(f"{trials} seeds that diverged; their errors count as they are.")
    return sentences


def _of_confirmation(found: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Speak of test errors; `rows` are the sculpted ones that have been compared."""
    better, worse = with_verdict(rows, "better"), with_verdict(rows, "worse")
    selected = len(found["selected"])
    whom = f"Of {counted(selected, 'candidate')} confirmed on {found['seeds']} fresh seeds"
    lower = "a lower test error than the dense base"
    higher = f", {len(worse)} {have(worse)} a higher one" if worse else ""
    if better:
        sentences = [f"{whom}, {len(better)} {have(better)} {lower}{higher}."]
    elif len(rows) < selected:
        sentences = [f"{whom}, none has been told to have {lower} so far{higher}."]
    else:
        sentences = [f"{whom}, none can be told to have {lower}{higher}."]
    if not found["complete"]:
        sentences.append(
            "The confirmation is not complete yet: verdicts that stand will stay, others may come."
        )
    for row in rows[:NAMED]:
        sentences.append(
            f"Trial {row['trial']} ({named(row)}): {percent(row['test_error'])} test error "
            f"against {percent(found['base']['test_error'])} of the base, a difference of "
            f"{points(row['difference'])} points, 95 % interval in brackets: {row['verdict']}"
            f"{uncorrected(row, selected)}."
        )
    sentences.append(confirmed_cost_sentence(found["base"], rows))
    shuffled = [row for row in found["rows"] if row["arm"] == "shuffled" and row["difference"]]
    for row in shuffled[:NAMED]:
        sentences.append(_of_control(row))
    return sentences


def _of_control(row: dict[str, Any]) -> str:
    meaning = {
        "worse": "so which weights are kept within the layers matters here",
        "better": "so its own mask is the worse one",
        "not distinguishable": (
            "so nothing here shows that it matters which weights are kept within the layers"
        ),
    }.get(row["verdict"], "so nothing can be said")
    return (
        f"Trial {row['trial']} with its mask shuffled within the layers differs from itself by "
        f"{points(row['difference'])} points: {row['verdict']}, {meaning}."
    )


def _of_ranking(base: dict[str, Any] | None, candidates: list[dict[str, Any]]) -> list[str]:
    """Speak of validation errors; rows are in the order of the ranking."""
    best = candidates[0]
    lowest = f"trial {best['trial']} ({named(best)}) with {percent(best['val_error'])}"
    if base is None:
        return [
            "The dense base has no result yet, so nothing is compared with it; the lowest mean "
            f"validation error is that of {lowest}."
        ]
    against = f"the base has {percent(base['val_error'])}"
    compared = [row for row in candidates if row["difference"]]
    if not compared:
        one_seed = base["val_error"]["n"] < 2
        reason = (
            "Base and candidates were trained with a single seed each"
            if one_seed
            else "No candidate can be compared with the base seed by seed"
        )
        return [
            f"{reason}, so no difference can be told from chance; the lowest mean validation "
            f"error is that of {lowest}, {against}.",
            "To compare, run a new study with search.replicates of 3 or more.",
        ]
    sentences = [_tally_of(compared)]
    leading = _best_of_budgets(candidates)
    for row in leading[:NAMED]:
        where = f"With {row['budget']:,} parameters the" if len(leading) > 1 else "The"
        text = f"{where} lowest mean error is that of trial {row['trial']} ({named(row)}): "
        text += f"{percent(row['val_error'])}; {against}"
        if row["difference"]:
            text += f"; difference {points(row['difference'])} points, 95 % interval in brackets: "
            text += f"{row['verdict']}{uncorrected(row, len(compared))}"
        sentences.append(text + ".")
    if len(leading) > NAMED:
        sentences.append(f"The other {counted(len(leading) - NAMED, 'budget')} are in the ranking.")
    return sentences


def _tally_of(compared: list[dict[str, Any]]) -> str:
    """Say how many candidates are told from the base, corrected for how many there are."""
    better, worse = with_verdict(compared, "better"), with_verdict(compared, "worse")
    like = with_verdict(compared, "not distinguishable")
    count = len(compared)
    corrected = f"by validation error, corrected for {counted(count, 'comparison')}"
    if better:
        rest = [f"{len(worse)} worse"] if worse else []
        rest += [f"{len(like)} not distinguishable from it"] if like else []
        return (
            f"{len(better)} of {counted(count, 'candidate')} {'is' if len(better) == 1 else 'are'} "
            f"better than the dense base {corrected}" + "".join(f", {text}" for text in rest) + "."
        )
    if not worse:
        whom = "The candidate cannot" if count == 1 else f"None of {count:,} candidates can"
        return (
            f"{whom} be told from the dense base {corrected}; that is not to say that they are "
            "equal: the intervals show which differences remain possible."
        )
    if not like:
        whom = "The candidate is" if count == 1 else f"All {count:,} candidates are"
        return f"{whom} worse than the dense base {corrected}."
    return (
        f"None of {count:,} candidates is better than the dense base {corrected}: {len(worse)} "
        f"worse, {len(like)} not distinguishable from it."
    )


def _best_by_luck(count: int) -> str:
    chosen = f"the best of {count:,} is best by luck, too" if count > 1 else "they chose it, too"
    return (
        f"These are the validation errors that candidates were ranked by, and {chosen}: train the "
        f"best again on fresh seeds and read the test images once, with sculpt run and {CONFIRM}."
    )


def _best_of_budgets(candidates: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the best candidate of each sampled budget, smallest first; else the best alone."""
    if not any("budget" in row["params"] for row in candidates):
        return [candidates[0]]  # one budget; or a share of each network, which are not compared
    best: dict[int, dict[str, Any]] = {}
    for row in candidates:
        best.setdefault(row["budget"], row)
    return [best[budget] for budget in sorted(best)]
