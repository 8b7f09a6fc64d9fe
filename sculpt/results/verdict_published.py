"""Whether the signs of published differences are found again, and what the intervals make of it."""

from typing import Any

from sculpt.results.wording import counted, have, with_verdict

MEASURES = {
    "lowest_test": "the lowest test error of all evaluations (the published protocol)",
    "selected_test": "the test error at the lowest validation error",
    "val": "validation error (the test images were not read)",
}

ROUNDING = 1e-12
"""A difference of mean errors that is nothing else, and has no sign."""


def families_shown(found: dict[str, Any]) -> list[str]:
    """Return the families of errors to set beside published ones: of test images where known."""
    if found["published_protocol"] == "lowest_test":
        return ["lowest_test", "selected_test"]
    return ["val"]


def published_sentences(found: dict[str, Any] | None) -> list[str]:
    """Speak of the rows that differ from the base in the publication.

    A sign is no more than a sign: what an interval that holds zero leaves open is said beside it.

    Args:
        found:
            Of `sculpt.results.against_published.against_published`.
    """
    rows = [
        row
        for row in (found["rows"] if found else [])
        if row["role"] == "candidate" and row["published"] and row["published"]["difference"]
    ]
    if found is None or not rows:
        return []
    finished = [row for row in rows if row["trial"] is not None]
    if not finished:
        return [f"None of {counted(len(rows), 'published row')} has finished here yet."]
    return [_signs(family, finished, found["compared"]) for family in families_shown(found)]


def _signs(family: str, finished: list[dict[str, Any]], compared: int) -> str:
    how = f"By {MEASURES[family]},"
    known = [
        row[family] | {"published": row["published"]["difference"]}
        for row in finished
        if row[family] and row[family]["difference"]
    ]
    whom = f"{counted(len(finished), 'published row')} that finished here"
    if not known:
        return f"{how} none of {whom} can be compared with the base."
    signs = [_sign(row["difference"]["mean"]) * _sign(row["published"]) for row in known]
    same = [row for row, sign in zip(known, signs, strict=True) if sign > 0]
    other = [row for row, sign in zip(known, signs, strict=True) if sign < 0]
    text = f"{how} {len(same) or 'none'} of {whom} {have(same or [0])} the published sign of the "
    text += "difference"
    if same:
        told = with_verdict(same, "better", "worse")
        like = len(same) - len(told)
        parts = [f"{len(told) or 'none'} of these told from the base"]
        parts += [f"{like} not distinguishable from it"] if like else []
        text += f": {', '.join(parts)}"
    if against := with_verdict(other, "better", "worse"):
        text += f"; {len(against)} {have(against)} the other sign and "
        text += f"{'is' if len(against) == 1 else 'are'} told from it"
    if missing := len(finished) - len(known):
        text += f"; {missing} cannot be compared"
    return f"{text} (corrected for {counted(compared, 'comparison')})."


def _sign(difference: float) -> int:
    return (difference > ROUNDING) - (difference < -ROUNDING)
