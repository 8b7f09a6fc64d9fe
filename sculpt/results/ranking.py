"""The ranking of a study: every finished trial against the dense base, best first."""

import math
from typing import Any

import pandas as pd

from sculpt.results.confirmation import confirmation
from sculpt.results.proxies import proxies
from sculpt.results.records import Results, budgets_of, parameters_of
from sculpt.results.statistics import judge


def rank(results: Results) -> dict[str, Any]:
    """Return the ranking as a JSON document (README, "JSON").

    Ranked by mean validation error; at equal error by kept MACs, then by trial. The verdicts are
    corrected for how many candidates are compared with the base.
    """
    table = results.complete
    budgets = budgets_of(results.config, table)
    return {
        "study": results.config.study,
        "budget": budgets[0] if len(budgets) == 1 else None,
        "trials": results.tally(),
        "ranking": _rows(results, table) if len(table) else [],
        "confirmation": confirmation(results),
        "proxies": proxies(results),
    }


def _rows(results: Results, table: pd.DataFrame) -> list[dict[str, Any]]:
    table = table.sort_values(["val_error_mean", "kept_macs"], kind="stable")
    is_base = table["role"] == "base"
    bases = table[is_base]["val_errors"]
    base_errors = bases.iloc[0] if len(bases) else []
    judged = iter(judge([(errors, base_errors) for errors in table[~is_base]["val_errors"]]))
    rows = []
    for position, (_, row) in enumerate(table.iterrows(), start=1):
        base = row["role"] == "base"
        deviation = row["val_error_std"]
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
                    "std": None if deviation is None or math.isnan(deviation) else float(deviation),
                    "n": int(row["val_error_n"]),
                },
                "diverged": int(row.get("diverged") or 0),
                "kept_macs": float(row["kept_macs"]),
                "dense_macs": int(row["dense_macs"]),
                **({"difference": None, "verdict": "base"} if base else next(judged)),
                "seconds": float(row["seconds"]),
            }
        )
    return rows
