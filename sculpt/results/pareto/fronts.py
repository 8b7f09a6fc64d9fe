"""The fronts of one or several studies, one for each budget, with their hypervolumes and knees."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sculpt.config import Params
from sculpt.dominance import hypervolume, knee, non_dominated
from sculpt.errors import InputError
from sculpt.quantities import of_metric
from sculpt.registry import OBJECTIVES
from sculpt.results.pareto.condition import holds
from sculpt.results.pareto.joined_studies import check_distinct, differences, finished_trials
from sculpt.results.records import Results
from sculpt.results.rows import budgets_of
from sculpt.units import ERROR, Metric

Array = NDArray[np.float64]

_LEADING = ["study", "trial", "role", "budget", "on_front", "knee"]


class Hypervolume(TypedDict):
    """Hypervolume of a front up to the dense base."""

    reference: dict[str, float]
    """The base's values."""
    volume: float
    share: float | None
    """As a share of the product of the base's values; None where that is 0."""


class Objective(TypedDict):
    """An objective of a front."""

    name: str
    direction: str
    unit: str


class FrontRow(TypedDict):
    """A trial that competes."""

    study: str
    trial: int | str
    role: str
    budget: int
    params: Params
    values: dict[str, float]
    """By objective."""
    knee: bool


class FrontDocument(TypedDict):
    """The front of one budget."""

    budget: int | None
    """None if each network keeps a share of its own."""
    front: list[FrontRow]
    dominated: int
    missing: int
    """Trials without some value."""
    hypervolume: Hypervolume | None
    """None without a base."""
    knee: dict[str, int | str] | None
    dominated_rows: NotRequired[list[FrontRow]]
    opponents: NotRequired[list[FrontRow]]
    """Reference points of studies with opponents, which are on no front."""


class ParetoDocument(TypedDict):
    """The fronts of studies (docs/reference/json.md)."""

    studies: list[str]
    objectives: list[Objective]
    front: list[FrontRow]
    dominated: int
    missing: int
    fronts: list[FrontDocument]
    notes: list[str]


class Front(NamedTuple):
    """The trials that compete at one budget, and opponents; see `FrontDocument`."""

    budget: int | None
    table: pd.DataFrame
    """Trials with all values, the front first, in the columns of `sculpt.pareto`."""
    missing: int
    hypervolume: Hypervolume | None
    opponents: pd.DataFrame


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
        study, trial (a candidate's number, "base", or an opponent's label), role.
        budget: parameters that were to be kept.
        on_front: no other trial of that budget is nowhere worse and somewhere better.
        knee: of its front, the trial where gains begin to cost most (`dominance.knee`).
        OBJECTIVE: the value of each objective, in its own unit, in the order given.
        Then all other columns of `Results.trials`; `Results.columns` has their units.

    Rows are sorted by budget, then by `on_front`, the front first, then by the first objective,
    the best first.

    Args:
        studies: One or several, with different names.
        objectives: Registered names; by default those of the first study.
        where: Keep only trials for which this holds, in pandas query syntax over the columns of
            `Results.trials` and the bare names of sampled parameters, for example "widening > 2"; a
            name with dots stands in backticks: "`pruning.repair` == True".
        dominated: Return the trials that others dominate, too, and after them opponents, which are
            on no front.

    Raises:
        UnknownNameError: an objective does not exist.
        InputError: no trial has a value of an objective, `where` is not a condition over the
            columns, an objective or a study is given twice, or two studies have one name.
    """
    _, fronts, _ = _find_fronts(_snapshots(studies), objectives, where)
    tables = [front.table for front in fronts]
    tables += [front.opponents for front in fronts if len(front.opponents)]
    table = pd.concat(tables)
    return (table if dominated else table[table["on_front"]]).reset_index(drop=True)


def pareto_document(
    studies: Results | Sequence[Results],
    objectives: Sequence[str] | None = None,
    where: str | None = None,
    dominated: bool = False,
) -> ParetoDocument:
    """Return the fronts of `pareto` as a JSON document (docs/reference/json.md), with hypervolumes.

    A hypervolume is what a front dominates up to the dense base, whether `where` keeps the base
    or not; of several studies, the base of the first that has one with all values.

    Raises:
        UnknownNameError, InputError: as `pareto`.
    """
    listed = _snapshots(studies)
    names, found, notes = _find_fronts(listed, objectives, where)
    fronts: list[FrontDocument] = []
    for front in found:
        rows, size = _rows(listed, front.table, names), int(front.table["on_front"].sum())
        bend = next((row for row in rows if row["knee"]), None)
        entry: FrontDocument = {
            "budget": front.budget,
            "front": rows[:size],
            "dominated": len(rows) - size,
            "missing": front.missing,
            "hypervolume": front.hypervolume,
            "knee": bend and {"study": bend["study"], "trial": bend["trial"]},
        }
        if dominated:
            entry["dominated_rows"] = rows[size:]
        if len(front.opponents):
            entry["opponents"] = _rows(listed, front.opponents, names)
        fronts.append(entry)
    return {
        "studies": [results.config.study for results in listed],
        "objectives": [described(name, listed[0].metric) for name in names],
        "front": [row for entry in fronts for row in entry["front"]],
        "dominated": sum(entry["dominated"] for entry in fronts),
        "missing": sum(entry["missing"] for entry in fronts),
        "fronts": fronts,
        "notes": notes,
    }


def _find_fronts(
    studies: Sequence[Results], objectives: Sequence[str] | None, where: str | None
) -> tuple[list[str], list[Front], list[str]]:
    """Return objectives, a front for each budget, and notes on them; see `pareto`."""
    check_distinct(studies)
    names = list(objectives or studies[0].config.search.objectives)
    if len(set(names)) < len(names):
        raise InputError(f"objectives must differ, but got {', '.join(names)}; name each once")
    kinds = [OBJECTIVES.get(name) for name in names]
    signs = np.array([1.0 if kind.direction == "minimize" else -1.0 for kind in kinds])
    complete = finished_trials(studies)
    if len(complete):
        _refuse_unmeasured(complete, names)
    complete = complete.reindex(columns=list(dict.fromkeys([*complete, *names])))
    base = _base_values(studies, complete, names)
    budgets, places = _compete(studies, complete)
    if where and len(complete):
        kept = holds(complete, where)
        complete, places = complete[kept], places[kept]

    complete = complete.assign(on_front=False, knee=False, budget=complete["budget"].astype(int))
    complete = complete[list(dict.fromkeys([*_LEADING, *names, *complete]))]
    costs = complete[names].to_numpy(dtype=float) * signs
    measured = ~np.isnan(costs).any(axis=1)
    opposing = (complete["role"] == "opponent").to_numpy(dtype=np.bool_)
    fronts: list[Front] = []
    for place, budget in enumerate(budgets):
        here = (places == place) & ~opposing
        beside = complete.iloc[np.flatnonzero((places == place) & opposing & measured)]
        rows = np.flatnonzero(here & measured)
        best = non_dominated(costs[rows])
        rows = rows[np.lexsort((costs[rows, 0], ~best))]
        size = int(best.sum())
        front = costs[rows[:size]]
        competing = np.arange(len(rows))
        table = complete.iloc[rows].assign(on_front=competing < size, knee=competing == knee(front))
        volume = base and _volume(front, signs, names, base[1])
        missing = int((here & ~measured).sum())
        fronts.append(Front(budget, table, missing, volume, beside))

    notes = differences(studies)
    ways: list[str] = []
    if "latency" in names and "latency_by" in complete:
        measured_by = pd.concat([front.table["latency_by"] for front in fronts])
        ways = list(map(str, measured_by.dropna().unique()))
    if len(ways) > 1:
        notes.append(
            f"latencies were measured in {len(ways)} ways and are not comparable: {'; '.join(ways)}"
        )
    if base is None and any(len(front.table) for front in fronts):
        notes.append("no dense base has finished with all these values: no hypervolume")
    elif base and len(studies) > 1:
        notes.append(f"the hypervolume is taken up to the dense base of {base[0]}")
    return names, fronts, notes


def _refuse_unmeasured(table: pd.DataFrame, names: list[str]) -> None:
    measured = {str(column) for column in table if table[column].notna().any()}
    if unmeasured := [name for name in names if name not in measured]:
        known = [name for name in OBJECTIVES.names() if name in measured]
        # What is only reported may not be searched by.
        searchable = not any(OBJECTIVES.get(name).report_only for name in unmeasured)
        raise InputError(
            f"a front must be over objectives that were measured, but no trial has "
            f"{', '.join(unmeasured)}; take of {', '.join(known)}"
            + (", or name it in search.objectives of a new study" if searchable else "")
        )


def _compete(
    studies: Sequence[Results], complete: pd.DataFrame
) -> tuple[list[int | None], NDArray[np.intp]]:
    """Return the budgets that have a front, and the place among them of the one of each row.

    Studies whose networks keep a share of their own have one together, of budget None. A row that
    competes in no front has place −1.
    """
    own = {r.config.study: budgets_of(r.config, r.finished) for r in studies}
    budgets: list[int | None] = [*sorted({budget for found in own.values() for budget in found})]
    of_shares = complete["study"].map(lambda study: not own[study]).to_numpy(dtype=np.bool_)
    if of_shares.any():
        budgets.append(None)
    if len(budgets) < 2:
        return budgets or [None], np.zeros(len(complete), dtype=np.intp)
    # A base is not pruned to a budget, so it is compared where it happens to have one.
    size = complete["budget"].where(complete["role"] != "base", complete["kept_parameters"])
    place_of = {budget: place for place, budget in enumerate(budgets) if budget is not None}
    places = size.map(place_of).fillna(-1).to_numpy(dtype=np.intp)
    return budgets, np.where(of_shares, len(budgets) - 1, places)


def _base_values(
    studies: Sequence[Results], complete: pd.DataFrame, names: list[str]
) -> tuple[str, Array] | None:
    """Return the first study whose base has all values, and these values; None without one."""
    bases = complete[complete["role"] == "base"].dropna(subset=names)
    for study in (results.config.study for results in studies):
        values = bases.loc[bases["study"] == study, names].to_numpy(dtype=float)
        if len(values):
            return study, values[0]
    return None


def _volume(front: Array, signs: Array, names: list[str], base: Array) -> Hypervolume:
    """Return the hypervolume of a front (n, objectives) of costs up to the base's values."""
    volume = hypervolume(front, base * signs)
    box = math.prod(abs(value) for value in base.tolist())
    return {
        "reference": dict(zip(names, base.tolist(), strict=True)),
        "volume": volume,
        "share": volume / box if box else None,
    }


def described(name: str, metric: Metric = ERROR) -> Objective:
    """Return an objective as documents name it, errors by the metric of their study."""
    kind: Any = of_metric(OBJECTIVES.get(name), metric)
    return {"name": name, "direction": kind.direction, "unit": kind.unit}


def _snapshots(studies: Results | Sequence[Results]) -> list[Results]:
    # Read once: all that follows should be of the same moment.
    listed = [studies] if isinstance(studies, Results) else studies
    return [results.snapshot() for results in listed]


def _rows(studies: list[Results], table: pd.DataFrame, names: list[str]) -> list[FrontRow]:
    """Return the rows of a table as JSON."""
    params = {(row["study"], row["trial"]): row["params"] for r in studies for row in r.finished}
    params |= {
        (row["study"], row["trial"]): row["params"] for r in studies for row in r.opponent_rows
    }
    params |= {(r.config.study, "base"): r.config.model.options for r in studies}
    # Column by column: a Series for each row would take most of the time of a large study.
    leading = table[["study", "trial", "role", "budget", "knee"]].to_dict("records")
    values = table[names].astype(float).to_numpy().tolist()
    return [
        {
            "study": row["study"],
            "trial": row["trial"],
            "role": row["role"],
            "budget": row["budget"],
            "params": params[row["study"], row["trial"]],
            "values": dict(zip(names, measured, strict=True)),
            "knee": row["knee"],
        }
        for row, measured in zip(leading, values, strict=True)
    ]
