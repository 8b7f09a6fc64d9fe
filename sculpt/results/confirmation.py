"""What the confirmation says of the best candidates: test errors on fresh seeds."""

from typing import Any

import pandas as pd

from sculpt.results.records import Results
from sculpt.results.rows import parameters_of, spread
from sculpt.results.statistics import judge


def confirmation(results: Results) -> dict[str, Any] | None:
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
    table = results.confirmation
    found = {
        (row["trial"], row["arm"]): row
        for _, row in table.iterrows()
        if row["state"] == "complete" and row["seeds"] == seeds
    }
    arms = ["sculpted"]
    if (settings and settings.control) or any(arm == "shuffled" for _, arm in found):
        arms.append("shuffled")
    sampled = {row["trial"]: parameters_of(row) for _, row in results.complete.iterrows()}
    base = found.get(("base", "sculpted"))

    rows: list[dict[str, Any]] = []
    for arm in arms:
        trials = [trial for trial in selected if (trial, arm) in found]
        others = [base if arm == "sculpted" else found.get((t, "sculpted")) for t in trials]
        pairs = [
            (_errors(found[trial, arm], "test_errors"), _errors(other, "test_errors"))
            for trial, other in zip(trials, others, strict=True)
        ]
        judged = judge(pairs, family=len(selected))
        for trial, pair, judgement in zip(trials, pairs, judged, strict=True):
            if not all(pair):
                judgement["verdict"] = None  # the other one is still to come
            against = "base" if arm == "sculpted" else trial
            rows.append(
                {"trial": trial, "arm": arm, "params": sampled.get(trial, {})}
                | _measured(found[trial, arm])
                | {"against": against}
                | judgement
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


def _measured(row: pd.Series) -> dict[str, Any]:
    return {
        "budget": int(row["budget"]),
        "kept_parameters": int(row["kept_parameters"]),
        "kept_macs": float(row["kept_macs"]),
        "val_error": spread(_errors(row, "val_errors")),
        "test_error": spread(_errors(row, "test_errors")),
    }


def _errors(row: pd.Series | None, kind: str) -> list[float]:
    """Return the errors of all seeds; none if the row is not there or any of them is not."""
    errors = None if row is None else row.get(kind)
    return errors if isinstance(errors, list) and None not in errors else []
