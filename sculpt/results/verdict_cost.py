"""What is won without paying for it: candidates with no more multiply-accumulates than the base."""

from typing import Any

from sculpt.results.numbers import percent, points
from sculpt.results.wording import NAMED, counted, have, named, uncorrected, with_verdict

DEAR = "each has more multiply-accumulates."


def cost_sentences(base: dict[str, Any] | None, candidates: list[dict[str, Any]]) -> list[str]:
    """Speak of validation errors.

    Args:
        base:
            Row of the ranking; nothing is said without it.
        candidates:
            Rows in the order of the ranking.
    """
    if base is None:
        return []
    cheap = _no_dearer(candidates, base)
    if not cheap:
        return [f"No candidate is as cheap as the base: {DEAR}"]
    text = (
        f"{len(cheap)} of {counted(len(candidates), 'candidate')} {have(cheap)} no more "
        "multiply-accumulates than the base"
    )
    if any(row["difference"] for row in cheap):
        better = with_verdict(cheap, "better")
        told = f"{len(better)} of these {'is' if len(better) == 1 else 'are'}"
        told = told if better else "none of these can be told to be"
        text += f"; {told} better than it by validation error"
    best = cheap[0]
    leading = (
        f"The lowest validation error of these is that of trial {best['trial']} ({named(best)}): "
        f"{percent(best['val_error'])}"
    )
    if best["difference"]:
        compared = sum(1 for row in candidates if row["difference"])
        leading += f", a difference of {points(best['difference'])} points, 95 % interval in "
        leading += f"brackets: {best['verdict']}{uncorrected(best, compared)}"
    return [f"{text}.", f"{leading}."]


def confirmed_cost_sentence(base: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Speak of test errors on fresh seeds.

    Args:
        base:
            Of the confirmation.
        rows:
            Its sculpted ones that have been compared, in the order of their selection.
    """
    cheap = _no_dearer(rows, base)
    if not cheap:
        return f"No candidate compared on fresh seeds is as cheap as the base: {DEAR}"
    text = (
        f"{len(cheap)} of {counted(len(rows), 'candidate')} compared on fresh seeds {have(cheap)} "
        "no more multiply-accumulates than the base"
    )
    better = with_verdict(cheap, "better")
    if not better:
        return f"{text}; none of these can be told to have a lower test error."
    names = ", ".join(f"trial {row['trial']}" for row in better[:NAMED])
    if len(better) > NAMED:
        names += f" and {len(better) - NAMED} more"
    return f"{text}; {len(better)} of these {have(better)} a lower test error: {names}."


def _no_dearer(rows: list[dict[str, Any]], base: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in rows if row["kept_macs"] <= base["kept_macs"]]
