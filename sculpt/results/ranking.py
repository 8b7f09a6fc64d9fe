"""The ranking of a study: every finished trial against the dense base, best first."""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from sculpt.config import Macs, Params
from sculpt.documents import Document
from sculpt.record import Role
from sculpt.results.against_opponents import OpposedRow, against_opponents
from sculpt.results.against_published import AgainstPublished, against_published
from sculpt.results.confirmed_errors import Confirmation, confirmed_errors
from sculpt.results.dense_frontier import DenseFrontier, dense_frontier
from sculpt.results.proxies import ProxyRow, proxies
from sculpt.results.records import Results
from sculpt.results.rows import budgets_of, by_error, val_error, whole
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
    training_seconds: float | None
    seconds: float
    arm: NotRequired[str]
    """Kind of an opponent."""


class UnrankedRow(TypedDict):
    """A trial that ended without a result."""

    trial: int | str
    state: str
    params: Params
    seconds: float | None
    error: str | None


class Ranking(TypedDict):
    """Ranking of a study (docs/reference/json.md)."""

    study: str
    budget: int | None
    trials: dict[str, int]
    ranking: list[RankRow]
    unranked: list[UnrankedRow]
    confirmation: Confirmation | None
    proxies: list[ProxyRow]
    published: AgainstPublished | None
    opponents: NotRequired[list[OpposedRow]]
    """Candidates against opponents, in a study that has any."""
    frontier: NotRequired[DenseFrontier]
    """What candidates are worth in dense networks, where these have several sizes."""
    macs: NotRequired[int | str]
    """The budget of multiply-accumulates, or `base`, of studies with one."""
    metric: NotRequired[dict[str, Any]]
    """What errors here are, if it is not the classification error; see `units.Metric`."""


def rank(results: Results) -> Ranking:
    """Return the ranking as a JSON document (docs/reference/json.md).

    Ranked by mean validation error; at equal error by kept MACs, then by trial. The verdicts are
    corrected for how many candidates are compared with the base; those on opponents for how many of
    these are.
    """
    results = results.snapshot()
    budgets = budgets_of(results.config, results.finished)
    document: Ranking = {
        "study": results.config.study,
        "budget": budgets[0] if len(budgets) == 1 else None,
        "trials": results.tally(),
        "ranking": _rows(results),
        "unranked": without_result([*results.opponent_rows, *results.rows]),
        "confirmation": confirmed_errors(results),
        "proxies": proxies(results),
        "published": against_published(results),
        **results.config.task.shown.in_document,  # type: ignore[typeddict-item]
    }
    if results.config.opponents:
        document["opponents"] = against_opponents(results)
    if frontier := dense_frontier(results):
        document["frontier"] = frontier
    if isinstance(budget := results.config.budget, Macs):
        document["macs"] = budget.macs
    return document


def all_rows(document: Ranking) -> list[Document]:
    """Return a ranking's rows, and after them those that ended without a result, for a file."""
    ranked: list[Document] = [{**row, "state": "complete"} for row in document["ranking"]]
    # Text in every row: one column is of one type.
    return [{**row, "trial": str(row["trial"])} for row in [*ranked, *document["unranked"]]]


def _rows(results: Results) -> list[RankRow]:
    finished = [*results.finished, *(r for r in results.opponent_rows if r["state"] == "complete")]
    ranked = sorted(finished, key=by_error)
    base = next((row for row in ranked if row["role"] == "base"), None)
    base_errors = base["val_errors"] if base else []
    # Two families: what is said of a candidate must not depend on how many opponents there are.
    pairs: dict[str, list[tuple[list[float], list[float]]]] = {"candidate": [], "opponent": []}
    for row in ranked:
        if row is not base:
            pairs[row["role"]].append((row["val_errors"], base_errors))
    judged = {role: iter(judge(found)) for role, found in pairs.items()}
    none: Judgement = {"difference": None, "verdict": "base"}
    rows: list[RankRow] = []
    for position, row in enumerate(ranked, start=1):
        judgement = none if row is base else next(judged[row["role"]])
        rows.append(
            {
                "rank": position,
                "trial": row["trial"],
                "role": row["role"],
                "params": results.config.model.options if row is base else row["params"],
                "budget": row["budget"],
                "kept_parameters": row["kept_parameters"],
                "sparsity": row["sparsity"],
                "val_error": val_error(row),
                "diverged": row.get("diverged") or 0,
                "kept_macs": float(row["kept_macs"]),
                "dense_macs": row["dense_macs"],
                "difference": judgement["difference"],
                "verdict": str(judgement["verdict"]) if base else "base not known",
                "dense_memory": whole(row.get("dense_memory")),
                "latency": whole(row.get("latency")),
                "epochs": whole(row.get("epochs")),
                "training_seconds": row.get("training_seconds"),
                "seconds": row["seconds"],
            }
        )
        if row["role"] == "opponent":
            rows[-1]["arm"] = row["arm"]
    return rows


def without_result(rows: Sequence[Document], states: Sequence[str] = UNRANKED) -> list[UnrankedRow]:
    """Return the trials that ended without a result, what failed first, and why.

    Of several attempts at the base or an opponent, the last one counts, unless one has finished.
    """
    attempts: dict[int | str, Document] = {}
    for row in rows:
        if attempts.get(row["trial"], row)["state"] != "complete":
            attempts[row["trial"]] = row
    ended: list[UnrankedRow] = [
        {
            "trial": row["trial"],
            "state": row["state"],
            "params": row["params"],
            "seconds": whole(row.get("seconds")),
            "error": row["error"],
        }
        for row in attempts.values()
        if row["state"] in states
    ]
    return sorted(ended, key=lambda row: states.index(row["state"]))
