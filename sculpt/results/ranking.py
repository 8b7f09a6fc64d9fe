"""The ranking of a study: every finished trial against the dense base, best first."""

from collections.abc import Sequence
from typing import TypedDict

import pandas as pd

from sculpt.config import Params
from sculpt.documents import Document
from sculpt.record import Role
from sculpt.results.against_published import AgainstPublished, against_published
from sculpt.results.confirmed_errors import Confirmation, confirmed_errors
from sculpt.results.proxies import ProxyRow, proxies
from sculpt.results.records import Results
from sculpt.results.rows import budgets_of, number_or_none, parameters_of
from sculpt.results.statistics import Difference, Judgement, judge
from sculpt.units import Error

UNRANKED = ("failed", "stopped", "infeasible")
"""States of trials that ended without a result; interrupted ones are run again."""


class RankRow(TypedDict):
    """A finished trial."""

    rank: int
    trial: int | str
    role: Role
    params: Params
    budget: int
    kept_parameters: int
    sparsity: float
    val_error: Error
    diverged: int
    """Seeds."""
    kept_macs: float
    dense_macs: int
    difference: Difference | None
    """From the base."""
    verdict: str
    dense_memory: float | None
    latency: float | None
    epochs: float | None
    training_seconds: float
    seconds: float


class UnrankedRow(TypedDict):
    """A trial that ended without a result."""

    trial: int | str
    state: str
    params: Params
    seconds: float | None
    error: str | None


class Ranking(TypedDict):
    """Ranking of a study (README, "JSON")."""

    study: str
    budget: int | None
    trials: dict[str, int]
    ranking: list[RankRow]
    unranked: list[UnrankedRow]
    confirmation: Confirmation | None
    proxies: list[ProxyRow]
    published: AgainstPublished | None


def rank(results: Results) -> Ranking:
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
        "unranked": without_result(results.trials),
        "confirmation": confirmed_errors(results),
        "proxies": proxies(results),
        "published": against_published(results),
    }


def all_rows(document: Ranking) -> list[Document]:
    """Return a ranking's rows, and after them those that ended without a result, for a file."""
    ranked: list[Document] = [{**row, "state": "complete"} for row in document["ranking"]]
    # Text in every row: one column is of one type.
    return [{**row, "trial": str(row["trial"])} for row in [*ranked, *document["unranked"]]]


def _rows(results: Results, table: pd.DataFrame) -> list[RankRow]:
    table = table.sort_values(["val_error_mean", "kept_macs"], kind="stable")
    is_base = table["role"] == "base"
    bases = table[is_base]["val_errors"]
    base_errors = bases.iloc[0] if len(bases) else []
    none: Judgement = {"difference": None, "verdict": "base"}
    judged = iter(judge([(errors, base_errors) for errors in table[~is_base]["val_errors"]]))
    rows: list[RankRow] = []
    for position, (_, row) in enumerate(table.iterrows(), start=1):
        base = row["role"] == "base"
        judgement = none if base else next(judged)
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
                "difference": judgement["difference"],
                "verdict": str(judgement["verdict"]),
                "dense_memory": number_or_none(row.get("dense_memory")),
                "latency": number_or_none(row.get("latency")),
                "epochs": number_or_none(row.get("epochs")),
                "training_seconds": float(row["training_seconds"]),
                "seconds": float(row["seconds"]),
            }
        )
    return rows


def without_result(table: pd.DataFrame, states: Sequence[str] = UNRANKED) -> list[UnrankedRow]:
    """Return the trials that ended without a result, what failed first, and why."""
    ended = table[table["state"].isin(states)].iterrows() if len(table) else []
    rows: list[UnrankedRow] = [
        {
            "trial": row["trial"],
            "state": row["state"],
            "params": parameters_of(row),
            "seconds": number_or_none(row.get("seconds")),
            "error": row["error"],
        }
        for _, row in ended
    ]
    return sorted(rows, key=lambda row: states.index(row["state"]))
