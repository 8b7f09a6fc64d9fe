"""The Pareto front of a study: trials that no other trial beats in every objective."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sculpt.config import Study
from sculpt.errors import InputError
from sculpt.registry import OBJECTIVES
from sculpt.results.records import Results, budgets_of, parameters_of


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which rows of an (n, objectives) array no other row dominates; lower is better.

    A row dominates another if it is nowhere higher and somewhere lower, so equal rows stand
    together. A row with NaN is never on the front and dominates nothing.
    """
    left = np.flatnonzero(~np.isnan(values).any(axis=1))
    for row in left.copy():
        if row in left:
            others = values[left]
            beaten = (values[row] <= others).all(axis=1) & (values[row] < others).any(axis=1)
            left = left[~beaten]
    front = np.zeros(len(values), dtype=np.bool_)
    front[left] = True
    return front


def pareto(
    results: Results, objectives: Sequence[str] | None = None, where: str | None = None
) -> dict[str, Any]:
    """Return the front of the finished trials, the base among them, as a JSON document.

    A study with several budgets has a front for each. The base belongs to the one of its own size.

    Args:
        results:
            The study.
        objectives:
            Registered names; by default those of the study.
        where:
            Keep only trials for which this holds, in pandas query syntax over the columns of
            `Results.trials` and the names of sampled parameters, for example "widening > 2".

    Raises:
        UnknownNameError: an objective does not exist.
        InputError: no trial has a value of an objective, or `where` is not a condition over the
            columns.
    """
    names = list(objectives or results.config.search.objectives)
    kinds = [OBJECTIVES.get(name) for name in names]
    signs = np.array([1.0 if kind.direction == "minimize" else -1.0 for kind in kinds])
    complete = results.complete
    if len(complete):
        _refuse_unmeasured(complete, names)
    table = _filter(complete, where) if where and len(complete) else complete
    fronts = [
        {"budget": budget} | _front(results.config, group, names, signs)
        for budget, group in _groups(results.config, complete, table)
    ]
    return {
        "objectives": [
            {"name": name, "direction": kind.direction, "unit": kind.unit}
            for name, kind in zip(names, kinds, strict=True)
        ],
        "front": [row for front in fronts for row in front["front"]],
        "dominated": sum(front["dominated"] for front in fronts),
        "missing": sum(front["missing"] for front in fronts),
        "fronts": fronts,
    }


def _refuse_unmeasured(table: pd.DataFrame, names: list[str]) -> None:
    measured = [str(column) for column in table if table[column].notna().any()]
    if unmeasured := [name for name in names if name not in measured]:
        known = [name for name in OBJECTIVES.names() if name in measured]
        # What is only reported may not be searched by.
        searchable = not any(OBJECTIVES.get(name).report_only for name in unmeasured)
        raise InputError(
            f"a front must be over objectives that were measured, but no trial has "
            f"{', '.join(unmeasured)}; take of {', '.join(known)}"
            + (", or name it in search.objectives of a new study" if searchable else "")
        )


def _filter(table: pd.DataFrame, where: str) -> pd.DataFrame:
    bare = {column: str(column).removeprefix("params.") for column in table}
    # A sampled budget may be a word; the column of that name has its number.
    named = [column for column in table if bare[column] == column or bare[column] not in table]
    queried = table[named].rename(columns=bare)
    try:
        return table.loc[queried.query(where, engine="python").index]
    except Exception as error:  # pandas raises whatever the expression leads to
        raise InputError(
            f"--where must be a condition over {', '.join(queried.columns)}, but "
            f"got {where!r} ({error})"
        ) from error


def _groups(
    config: Study, complete: pd.DataFrame, table: pd.DataFrame
) -> list[tuple[int | None, pd.DataFrame]]:
    """Return the rows of `table` of each budget among those that are complete."""
    budgets = budgets_of(config, complete)
    if len(budgets) < 2:
        return [(budgets[0] if budgets else None, table)]
    is_base = table["role"] == "base"
    # The base is not pruned to a budget, so it is compared where it happens to have one.
    size = table["budget"].where(~is_base, table["kept_parameters"])
    return [(budget, table[size == budget]) for budget in budgets]


def _front(
    config: Study, table: pd.DataFrame, names: list[str], signs: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the front of rows that compete: its trials, and how many others there are."""
    values = table[names].to_numpy(dtype=float) if len(table) else np.empty((0, len(names)))
    on_front = non_dominated(values * signs)
    missing = int(np.isnan(values).any(axis=1).sum())
    chosen = table[on_front]
    if len(chosen):
        chosen = chosen.sort_values(names[0], ascending=signs[0] > 0, kind="stable")
    front = [
        {
            "trial": row["trial"],
            "role": row["role"],
            "budget": int(row["budget"]),
            "params": config.model.options if row["role"] == "base" else parameters_of(row),
            "values": {name: float(row[name]) for name in names},
        }
        for _, row in chosen.iterrows()
    ]
    dominated = int((~on_front).sum()) - missing
    return {"front": front, "dominated": dominated, "missing": missing}
