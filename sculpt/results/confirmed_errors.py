"""Confirmation of the best candidates: test errors on fresh seeds."""

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypedDict, get_args

from sculpt.config import Params, Study
from sculpt.config.opponents import Control, is_near
from sculpt.documents import Document
from sculpt.results.records import Results
from sculpt.results.rows import of_every_seed, spread
from sculpt.results.statistics import Difference, judge
from sculpt.units import Error

Arm = Literal["sculpted", "shuffled", "erk"]


class Measured(TypedDict):
    """Costs of a network, and its errors on the fresh seeds."""

    budget: int
    kept_parameters: int
    kept_macs: float
    val_error: Error | None
    test_error: Error | None


class ConfirmedRow(Measured):
    """A candidate, or its control, against what it is compared with."""

    trial: int
    arm: Arm
    params: Params
    against: int | str
    difference: Difference | None
    verdict: str | None
    """None while the other one is still to come."""


class ConfirmedDense(Measured):
    """A dense opponent against the base."""

    trial: str
    params: Params
    difference: Difference | None
    verdict: str | None


class AgainstDense(TypedDict):
    """A candidate against the dense opponent of its size."""

    trial: int
    against: str
    difference: Difference | None
    verdict: str | None


class Confirmation(TypedDict):
    """The confirmation of a study (docs/reference/json.md)."""

    top: int
    seeds: int
    selected: list[int]
    complete: bool
    base: Measured | None
    rows: list[ConfirmedRow]
    dense: NotRequired[list[ConfirmedDense]]
    """Best dense opponents, in a study that has any, ..."""
    against_dense: NotRequired[list[AgainstDense]]
    """... and the candidates of their sizes against them."""


def confirmed_errors(results: Results) -> Confirmation | None:
    """Return the confirmation as a JSON document (docs/reference/json.md); None without one.

    Each selected candidate is compared with the base and with the dense opponent of its size that
    was confirmed, and each control with its own candidate, on test errors, seed by seed. Each
    family of comparisons is corrected for all that were selected, so that verdicts can only gain
    while the rest are being trained.
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
    asked = settings.controls if settings else []
    arms += [arm for arm in get_args(Control) if arm in asked or any(a == arm for _, a in found)]
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
    labels = results.confirmed_dense
    dense = {label: found[label, "dense"] for label in labels if (label, "dense") in found}
    document: Confirmation = {
        "top": settings.top if settings else len(selected),
        "seeds": seeds,
        "selected": selected,
        # Of a control that is asked for no longer, there may be some.
        "complete": base is not None
        and all((trial, arm) in found for trial in selected for arm in ("sculpted", *asked))
        and len(dense) == len(labels),
        "base": None if base is None else _measured(base),
        "rows": rows,
    }
    if labels:
        document["dense"] = _dense(results, dense, base)
        document["against_dense"] = _against_dense(results.config, selected, found, dense)
    return document


def _dense(
    results: Results, dense: Mapping[str, Document], base: Document | None
) -> list[ConfirmedDense]:
    """Return the dense opponents against the base, corrected for their number."""
    known = {row["trial"]: row["params"] for row in results.opponent_rows}
    pairs = [(_test_errors(row), _test_errors(base)) for row in dense.values()]
    return [
        {
            "trial": label,
            "params": known.get(label, {}),
            **_measured(row),
            "difference": judgement["difference"],
            "verdict": judgement["verdict"] if all(pair) else None,
        }
        for (label, row), pair, judgement in zip(dense.items(), pairs, judge(pairs), strict=True)
    ]


def _against_dense(
    config: Study,
    selected: Sequence[int],
    found: Mapping[tuple[int | str, str], Document],
    dense: Mapping[str, Document],
) -> list[AgainstDense]:
    """Return the selected candidates against the dense opponent of their size."""
    trained = [trial for trial in selected if (trial, "sculpted") in found]
    near = {
        trial: label
        for trial in trained
        for label, row in dense.items()
        if is_near(row, found[trial, "sculpted"], by_macs=config.counts_macs)
    }
    pairs = [
        (_test_errors(found[trial, "sculpted"]), _test_errors(dense[label]))
        for trial, label in near.items()
    ]
    judged = judge(pairs, family=len(selected))
    return [
        {
            "trial": trial,
            "against": label,
            "difference": judgement["difference"],
            "verdict": judgement["verdict"] if all(pair) else None,
        }
        for (trial, label), pair, judgement in zip(near.items(), pairs, judged, strict=True)
    ]


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
