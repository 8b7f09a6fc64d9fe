"""A study's trials as rows of plain data: those that finished, and why the others did not."""

from statistics import mean, stdev
from typing import Any

import pandas as pd

from sculpt.quantities import STEPS
from sculpt.results.numbers import number
from sculpt.results.rows import parameters_of
from sculpt.results.wording import configuration

SIGNALS = ("jacobian_mean", "orthogonality_score", "effective_parameters")

LONGEST_REASON = 600
"""Characters of an error that are kept; `sculpt show` has all of it."""


def finished_trials(
    document: dict[str, Any], complete: pd.DataFrame, objectives: list[str], budgets: list[int]
) -> list[dict[str, Any]]:
    """Return the rows of a ranking, each with what else the table knows of it.

    Args:
        document:
            Of `sculpt.results.ranking.rank`.
        complete:
            `Results.complete`.
        objectives:
            Names of those that were measured.
        budgets:
            Sizes that have a front each.
    """
    known = {row["trial"]: row for row in complete.to_dict("records")}
    trials = []
    for row in document["ranking"]:
        found = known.get(row["trial"])
        if found is None:
            continue  # finished after the table was read
        # The base is not pruned to a budget, so it competes where it happens to have one.
        size = row["kept_parameters"] if row["role"] == "base" else row["budget"]
        trials.append(
            {
                **{key: row[key] for key in ("trial", "role", "rank", "budget", "diverged")},
                "settings": row["params"],
                "params": configuration(row["params"]),
                "group": None if len(budgets) < 2 else size,
                "val": row["val_error"],
                "test": _spread(found.get("test_errors")),
                "difference": row["difference"],
                "verdict": row["verdict"],
                **{key: row[key] for key in ("kept_parameters", "sparsity", "kept_macs")},
                "dense_parameters": number(found.get("dense_parameters")),
                "dense_macs": row["dense_macs"],
                "seconds": row["seconds"],
                "values": {name: number(found.get(name)) for name in objectives},
                "signal": {
                    step: {name: number(found.get(f"{step}_{name}")) for name in SIGNALS}
                    for step in STEPS
                },
            }
        )
    return trials


def unfinished_trials(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return every trial that is not complete: its state, its configuration, and why."""
    if not len(table):
        return []
    rows = []
    for _, row in table[table["state"] != "complete"].iterrows():
        reason = row.get("error")
        reason = reason if isinstance(reason, str) else ""
        if len(reason) > LONGEST_REASON:
            reason = f"{reason[:LONGEST_REASON]} …"
        rungs = row.get("rungs")
        rungs = rungs if isinstance(rungs, dict) else {}
        rows.append(
            {
                "trial": row["trial"],
                "state": row["state"],
                "params": configuration(parameters_of(row)),
                "reason": reason,
                "rungs": [[int(epoch), number(error)] for epoch, error in rungs.items()],
            }
        )
    return rows


def _spread(errors: Any) -> dict[str, Any] | None:
    """Return the mean of all seeds' errors and their spread; None unless every seed has one."""
    values = [number(error) for error in errors] if isinstance(errors, list) else []
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {
        "mean": mean(known),
        "std": stdev(known) if len(known) > 1 else None,
        "n": len(known),
    }
