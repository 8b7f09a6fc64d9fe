"""Confirmation of the best candidates: test errors on fresh seeds."""

from typing import Literal, TypedDict

from sculpt.config import Params
from sculpt.documents import Document
from sculpt.results.records import Results
from sculpt.results.rows import of_every_seed, spread
from sculpt.results.statistics import Difference, judge
from sculpt.units import Error

Arm = Literal["sculpted", "shuffled"]


class Measured(TypedDict):
    """Costs of a network, and its errors on the fresh seeds."""

    budget: int
    kept_parameters: int
    kept_macs: float
    val_error: Error | None
    test_error: Error | None


class ConfirmedRow(Measured):
    """A candidate, or the same with a shuffled mask, against what it is compared with."""

    trial: int
    arm: Arm
    params: Params
    against: int | str
    difference: Difference | None
    verdict: str | None
    """None while the other one is still to come."""


class Confirmation(TypedDict):
    """The confirmation of a study (README, "JSON")."""

    top: int
    seeds: int
    selected: list[int]
    complete: bool
    base: Measured | None
    rows: list[ConfirmedRow]


def confirmed_errors(results: Results) -> Confirmation | None:
    """Return the confirmation as a JSON document (README, "JSON"); None without one.

    Each selected candidate is compared with the base, and each network with a shuffled mask with
    its own candidate, on test errors, seed by seed. Either family of comparisons is corrected for
    all that were selected, so that verdicts can only gain while the rest are being trained.
    """
    confirmed = results.confirmed
    if confirmed is None:
        return None
    selected, seeds = confirmed
    settings = results.config.search.confirm
    found = {
        (row["trial"], row["arm"]): row
        for row in results.confirming
        if row["state"] == "complete" and row["seeds"] == seeds
    }
    arms: list[Arm] = ["sculpted"]
    if (settings and settings.control) or any(arm == "shuffled" for _, arm in found):
        arms.append("shuffled")
    sampled = {row["trial"]: row["params"] for row in results.finished}
    base = found.get(("base", "sculpted"))

    rows: list[ConfirmedRow] = []
    for arm in arms:
        trials = [trial for trial in selected if (trial, arm) in found]
        others = [base if arm == "sculpted" else found.get((t, "sculpted")) for t in trials]
        pairs = [
            (_test_errors(found[trial, arm]), _test_errors(other))
            for trial, other in zip(trials, others, strict=True)
        ]
        judged = judge(pairs, family=len(selected))
        for trial, pair, judgement in zip(trials, pairs, judged, strict=True):
            rows.append(
                {
                    "trial": trial,
                    "arm": arm,
                    "params": sampled.get(trial, {}),
                    **_measured(found[trial, arm]),
                    "against": "base" if arm == "sculpted" else trial,
                    "difference": judgement["difference"],
                    "verdict": judgement["verdict"] if all(pair) else None,
                }
            )
    # As they were selected, by validation error: to sort by test error would be to choose by it.
    rows.sort(key=lambda row: selected.index(row["trial"]))
    return {
        "top": settings.top if settings else len(selected),
        "seeds": seeds,
        "selected": selected,
        "complete": base is not None and len(rows) == len(arms) * len(selected),
        "base": None if base is None else _measured(base),
        "rows": rows,
    }


def _measured(row: Document) -> Measured:
    return {
        "budget": row["budget"],
        "kept_parameters": row["kept_parameters"],
        "kept_macs": float(row["kept_macs"]),
        "val_error": spread(of_every_seed(row.get("val_errors"))),
        "test_error": spread(_test_errors(row)),
    }


def _test_errors(row: Document | None) -> list[float]:
    return of_every_seed(row.get("test_errors")) if row else []
