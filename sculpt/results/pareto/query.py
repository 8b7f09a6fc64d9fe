"""The Pareto front of one or several studies: trials that no other beats in every objective."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sculpt.registry import OBJECTIVES
from sculpt.results.pareto.fronts import find_fronts
from sculpt.results.records import Results


def pareto(
    studies: Results | Sequence[Results],
    objectives: Sequence[str] | None = None,
    where: str | None = None,
    dominated: bool = False,
) -> pd.DataFrame:
    """Return the front of the finished trials, the dense bases among them, one row for each.

    Studies with several budgets have a front for each of them. A base belongs to that of its own
    size; where there is one budget in all, to the only one.

    Columns:
        study, trial (a candidate's number, or "base"), role ("base" or "candidate").
        budget: parameters that were to be kept.
        on_front: no other trial of that budget is nowhere worse and somewhere better.
        knee: of its front, the trial where gains begin to cost most (`dominance.knee`).
        OBJECTIVE: the value of each objective, in its own unit, in the order given.
        Then all other columns of `Results.trials`; `Results.columns` has their units.

    Rows are sorted by budget, then by `on_front`, the front first, then by the first objective,
    the best first.

    Args:
        studies:
            One or several, with different names.
        objectives:
            Registered names; by default those of the first study.
        where:
            Keep only trials for which this holds, in pandas query syntax over the columns of
            `Results.trials` and the bare names of sampled parameters, for example "widening > 2";
            a name with dots stands in backticks: "`pruning.repair` == True".
        dominated:
            Return the trials that others dominate, too.

    Raises:
        UnknownNameError: an objective does not exist.
        InputError: no trial has a value of an objective, `where` is not a condition over the
            columns, an objective or a study is given twice, or two studies have one name.
    """
    table = find_fronts(_listed(studies), objectives, where).table
    return table if dominated else table[table["on_front"]].reset_index(drop=True)


def pareto_document(
    studies: Results | Sequence[Results],
    objectives: Sequence[str] | None = None,
    where: str | None = None,
    dominated: bool = False,
) -> dict[str, Any]:
    """Return what `pareto` finds as a JSON document (README, "JSON"), with hypervolumes.

    A hypervolume is what a front dominates up to the dense base, whether `where` keeps the base
    or not; of several studies, the base of the first that has one with all values.

    Raises:
        UnknownNameError, InputError: as `pareto`.
    """
    listed = _listed(studies)
    found = find_fronts(listed, objectives, where)
    fronts = []
    for front in found.fronts:
        shown = front.competing if dominated else front.size
        table = found.table.iloc[front.begin : front.begin + shown]
        rows = _rows(listed, table, found.objectives)
        bend = next((row for row in rows if row["knee"]), None)
        entry: dict[str, Any] = {
            "budget": front.budget,
            "front": rows[: front.size],
            "dominated": front.competing - front.size,
            "missing": front.missing,
            "hypervolume": front.hypervolume,
            "knee": bend and {"study": bend["study"], "trial": bend["trial"]},
        }
        if dominated:
            entry["dominated_rows"] = rows[front.size :]
        fronts.append(entry)
    kinds = [(name, OBJECTIVES.get(name)) for name in found.objectives]
    return {
        "studies": [results.config.study for results in listed],
        "objectives": [
            {"name": name, "direction": kind.direction, "unit": kind.unit} for name, kind in kinds
        ],
        "front": [row for entry in fronts for row in entry["front"]],
        "dominated": sum(entry["dominated"] for entry in fronts),
        "missing": sum(entry["missing"] for entry in fronts),
        "fronts": fronts,
        "notes": found.notes,
    }


def _listed(studies: Results | Sequence[Results]) -> list[Results]:
    return [studies] if isinstance(studies, Results) else list(studies)


def _rows(studies: list[Results], table: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON."""
    # Column by column: a Series for each row would take most of the time of a large study.
    dense = {results.config.study: results.config.model.options for results in studies}
    leading = table[["study", "trial", "role", "budget", "knee"]].to_dict("records")
    values = table[names].astype(float).to_dict("records")
    return [
        {
            "study": row["study"],
            "trial": row["trial"],
            "role": row["role"],
            "budget": row["budget"],
            "params": dense[row["study"]] if row["role"] == "base" else sampled,
            "values": measured,
            "knee": row["knee"],
        }
        for row, sampled, measured in zip(leading, _sampled(table), values, strict=True)
    ]


def _sampled(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the sampled parameters of each row, without those that a condition left out."""
    sampled: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for name in (str(column) for column in table if str(column).startswith("params.")):
        values, known = table[name].astype(object).tolist(), table[name].notna().tolist()
        for row, value, given in zip(sampled, values, known, strict=True):
            if given:
                # A gap in the column made floats of whole numbers.
                whole = isinstance(value, float) and value.is_integer()
                row[name.removeprefix("params.")] = int(value) if whole else value
    return sampled
