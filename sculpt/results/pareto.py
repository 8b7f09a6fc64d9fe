"""The Pareto front of a study: trials that no other trial beats in every objective."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sculpt.errors import InputError
from sculpt.registry import OBJECTIVES
from sculpt.results.records import Results, parameters_of


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
        InputError: `where` is not a condition over the columns.
    """
    names = list(objectives or results.config.search.objectives)
    kinds = [OBJECTIVES.get(name) for name in names]
    table = results.complete
    if where and len(table):
        queried = table.rename(columns=lambda column: column.removeprefix("params."))
        try:
            table = table.loc[queried.query(where, engine="python").index]
        except Exception as error:  # pandas raises whatever the expression leads to
            raise InputError(
                f"--where must be a condition over {', '.join(map(str, queried.columns))}, but "
                f"got {where!r} ({error})"
            ) from error
    front: list[dict[str, Any]] = []
    dominated = 0
    if len(table):
        values = table[names].to_numpy(dtype=float)
        signs = np.array([1.0 if kind.direction == "minimize" else -1.0 for kind in kinds])
        on_front = non_dominated(values * signs)
        dominated = int((~on_front).sum())
        chosen = table[on_front].sort_values(names[0], ascending=signs[0] > 0, kind="stable")
        for _, row in chosen.iterrows():
            is_base = row["role"] == "base"
            front.append(
                {
                    "trial": row["trial"],
                    "role": row["role"],
                    "params": results.config.model.options if is_base else parameters_of(row),
                    "values": {name: float(row[name]) for name in names},
                }
            )
    return {
        "objectives": [
            {"name": name, "direction": kind.direction, "unit": kind.unit}
            for name, kind in zip(names, kinds, strict=True)
        ],
        "front": front,
        "dominated": dominated,
    }
