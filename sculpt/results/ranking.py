"""The ranking of a study: every finished trial against the dense base, best first."""

import math
from typing import Any

from sculpt.config import Sparsity
from sculpt.results.records import Results, parameters_of
from sculpt.results.statistics import verdict


def rank(results: Results) -> dict[str, Any]:
    """Return the ranking as a JSON document (README, "JSON").

    Ranked by mean validation error; at equal error by kept MACs, then by trial.
    """
    table = results.complete
    rows: list[dict[str, Any]] = []
    budget = None
    if len(table):
        relative = isinstance(results.config.budget, Sparsity)
        budget = None if relative else int(table["budget"].iloc[0])
        bases = table[table["role"] == "base"]["val_errors"]
        base_errors = bases.iloc[0] if len(bases) else []
        table = table.sort_values(["val_error_mean", "kept_macs"], kind="stable")
        for position, (_, row) in enumerate(table.iterrows(), start=1):
            is_base = row["role"] == "base"
            spread = row["val_error_std"]
            rows.append(
                {
                    "rank": position,
                    "trial": row["trial"],
                    "role": row["role"],
                    "params": results.config.model.options if is_base else parameters_of(row),
                    "kept_parameters": int(row["kept_parameters"]),
                    "sparsity": float(row["sparsity"]),
                    "val_error": {
                        "mean": float(row["val_error_mean"]),
                        "std": None if spread is None or math.isnan(spread) else float(spread),
                        "n": int(row["val_error_n"]),
                    },
                    "diverged": int(row.get("diverged") or 0),
                    "kept_macs": float(row["kept_macs"]),
                    "dense_macs": int(row["dense_macs"]),
                    "verdict": "base" if is_base else verdict(row["val_errors"], base_errors),
                    "seconds": float(row["seconds"]),
                }
            )
    return {
        "study": results.config.study,
        "budget": budget,
        "trials": results.tally(),
        "ranking": rows,
    }
