"""The ranking of a study: every finished trial against the dense base, best first."""

from typing import Any

import pandas as pd

from sculpt.results.against_published import against_published
from sculpt.results.confirmation import confirmation
from sculpt.results.proxies import proxies
from sculpt.results.records import Results
from sculpt.results.rows import budgets_of, number_or_none, parameters_of
from sculpt.results.statistics import judge

UNRANKED = ("failed", "stopped", "infeasible")
"""States of trials that ended without a result; interrupted ones are run again."""


def rank(results: Results) -> dict[str, Any]:
    """Return the ranking as a JSON document (README, "JSON").

    Ranked by mean validation error; at equal error by kept MACs, then by trial. The verdicts are
    corrected for how many candidates are compared with the base.
    """
    results = results.snapshot()
    table = results.complete
    budgets = budgets_of(results.config, table)
    return {
        "study": results.config.study,
        "budget": budgets[0] if len(budgets) == 1 else None,
        "trials": results.tally(),
        "ranking": _rows(results, table) if len(table) else [],
        "unranked": _unranked(results.trials),
        "confirmation": confirmation(results),
        "proxies": proxies(results),
        "published": against_published(results),
    }


def all_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a ranking's rows, and after them those that ended without a result, for a file."""
    ranked = [row | {"state": "complete"} for row in document["ranking"]]
    # Text in every row: one column is of one type.
    return [row | {"trial": str(row["trial"])} for row in ranked + document["unranked"]]


def _rows(results: Results, table: pd.DataFrame) -> list[dict[str, Any]]:
    table = table.sort_values(["val_error_mean", "kept_macs"], kind="stable")
    is_base = table["role"] == "base"
    bases = table[is_base]["val_errors"]
    base_errors = bases.iloc[0] if len(bases) else []
    judged = iter(judge([(errors, base_errors) for errors in table[~is_base]["val_errors"]]))
    rows = []
    for position, (_, row) in enumerate(table.iterrows(), start=1):
        base = row["role"] == "base"
        rows.append(
            {
                "rank": position,
                "trial": row["trial"],
                "role": row["role"],
                "params": results.config.model.options if base else parameters_of(row),
                "budget": int(row["budget"]),
                "kept_parameters": int(row["kept_parameters"]),
                "sparsity": float(row["sparsity"]),
                "val_error": {
                    "mean": float(row["val_error_mean"]),
                    "std": number_or_none(row["val_error_std"]),
                    "n": int(row["val_error_n"]),
                },
                "diverged": int(row.get("diverged") or 0),
                "kept_macs": float(row["kept_macs"]),
                "dense_macs": int(row["dense_macs"]),
                **({"difference": None, "verdict": "base"} if base else next(judged)),
                "dense_memory": number_or_none(row.get("dense_memory")),
                "latency": number_or_none(row.get("latency")),
                "epochs": number_or_none(row.get("epochs")),
                "training_seconds": float(row["training_seconds"]),
                "seconds": float(row["seconds"]),
            }
        )
    return rows


def _unranked(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the trials that ended without a result, what failed first, and why."""
    rows = (
        [
            {
                "trial": row["trial"],
                "state": row["state"],
                "params": parameters_of(row),
                "seconds": number_or_none(row.get("seconds")),
                "error": row["error"],
            }
            for _, row in table[table["state"].isin(UNRANKED)].iterrows()
        ]
        if len(table)
        else []
    )
    return sorted(rows, key=lambda row: UNRANKED.index(row["state"]))
