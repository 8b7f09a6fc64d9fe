"""Everything that a report says of a study, as plain data: nothing here is drawn or marked up."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sculpt.dominance import non_dominated
from sculpt.registry import OBJECTIVES
from sculpt.results.numbers import number
from sculpt.results.proxies import measures
from sculpt.results.ranking import rank
from sculpt.results.records import Results
from sculpt.results.report.details import chosen_details
from sculpt.results.report.reproduction import reproduction
from sculpt.results.report.trials import finished_trials, unfinished_trials
from sculpt.results.rows import budgets_of
from sculpt.results.verdict import verdict_sentences

SHOWN_PROXIES = 6
"""The strongest; the others are not drawn."""


@dataclass(frozen=True)
class Content:
    """What a report says. Errors and sparsities are fractions, as in every JSON document."""

    study: str
    verdict: list[str]
    document: dict[str, Any]
    """Of `sculpt.results.ranking.rank`: counts, ranking, confirmation, proxies."""
    error: str
    """Which error is set against sparsity: `test` where the study's protocol makes it."""
    objectives: list[dict[str, str]]
    """Those that were measured: name, unit, direction."""
    axes: list[str]
    """Up to two of them, those of the study first."""
    budgets: list[int]
    """Each has a front of its own; none where all compete."""
    front: list[int | str]
    """Trials that no other of their budget beats on both axes."""
    trials: list[dict[str, Any]]
    """Finished ones, base and candidates, in the order of the ranking."""
    unfinished: list[dict[str, Any]]
    details: dict[int | str, dict[str, Any]]
    """Layers and learning curve of those whose records were read; or what is the problem."""
    published: dict[str, Any] | None
    """`source` and `points`: figures from elsewhere that can be set beside these."""
    proxies: list[dict[str, Any]]
    reproduction: dict[str, Any]

    @property
    def base(self) -> dict[str, Any] | None:
        """The dense base, if it has finished."""
        return next((trial for trial in self.trials if trial["role"] == "base"), None)

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """The finished candidates, best first."""
        return [trial for trial in self.trials if trial["role"] == "candidate"]

    @property
    def selected(self) -> int | str | None:
        """The trial that is shown until another is chosen: the best candidate, else the base."""
        return next((trial["trial"] for trial in self.candidates + self.trials), None)


def collect(results: Results) -> Content:
    """Read all that a report says of a study."""
    document = rank(results)
    table = results.trials
    complete = table[table["state"] == "complete"] if len(table) else table
    objectives = _objectives(complete)
    axes = _axes(results, [objective["name"] for objective in objectives])
    budgets = budgets_of(results.config, complete)
    names = [objective["name"] for objective in objectives]
    trials = finished_trials(document, complete, names, budgets)
    front = _front(trials, objectives, axes)
    details, records = chosen_details(results, document, front)
    return Content(
        study=results.config.study,
        verdict=verdict_sentences(document),
        document=document,
        error="test" if results.config.training.protocol == "lowest_test" else "val",
        objectives=objectives,
        axes=axes,
        budgets=budgets if len(budgets) > 1 else [],
        front=front,
        trials=trials,
        unfinished=unfinished_trials(table),
        details=details,
        published=_published(results, trials),
        proxies=_proxies(document, complete),
        reproduction=reproduction(results, table, records, document["budget"]),
    )


def _objectives(complete: pd.DataFrame) -> list[dict[str, str]]:
    measured = [n for n in OBJECTIVES.names() if n in complete and complete[n].notna().any()]
    kinds = [(name, OBJECTIVES.get(name)) for name in measured]
    return [{"name": n, "unit": kind.unit, "direction": kind.direction} for n, kind in kinds]


def _axes(results: Results, measured: list[str]) -> list[str]:
    """Return the pair that the front is over at first; a study of one objective gets a cost."""
    wanted = [*results.config.search.objectives, "val_error", "kept_macs"]
    return [name for name in dict.fromkeys(wanted) if name in measured][:2]


def _front(
    trials: list[dict[str, Any]], objectives: list[dict[str, str]], axes: list[str]
) -> list[int | str]:
    """Return the trials on the fronts that are drawn at first, those of each budget."""
    signs = {o["name"]: 1 if o["direction"] == "minimize" else -1 for o in objectives}
    front: list[int | str] = []
    for group in dict.fromkeys(trial["group"] for trial in trials):
        rows = [trial for trial in trials if trial["group"] == group]
        values = [[trial["values"][name] for name in axes] for trial in rows]
        table = np.array(values, dtype=float) * [signs[name] for name in axes]
        if axes:
            chosen = non_dominated(table)
            front += [row["trial"] for row, on in zip(rows, chosen, strict=True) if on]
    return front


def _published(results: Results, trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return published errors of configurations that finished here, for their sparsity."""
    published = results.config.published
    if published is None:
        return None
    found, unmatched = [], 0
    settings = {
        "base" if trial["role"] == "base" else _key(trial["settings"]): trial for trial in trials
    }
    for row in published.rows:
        errors = {kind: number(row.get(f"{kind}_error")) for kind in ("test", "val")}
        if errors["test"] is None and errors["val"] is None:
            continue
        trial = settings.get(_key(row.get("params")))
        if trial is None:
            unmatched += 1
            continue
        found.append({"trial": trial["trial"], "sparsity": trial["sparsity"], **errors})
    if not found and not unmatched:
        return None
    return {"source": published.source, "points": found, "unmatched": unmatched}


def _key(params: Any) -> str:
    """Return what names a configuration, in whatever order its parameters stand."""
    return str(sorted(params.items()) if isinstance(params, dict) else params)


def _proxies(document: dict[str, Any], complete: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the strongest proxies, each with its values beside the validation errors."""
    strongest = [row for row in document["proxies"] if row["rho"] is not None][:SHOWN_PROXIES]
    if not strongest:
        return []
    candidates = complete[complete["role"] == "candidate"]
    columns = measures(candidates)
    return [
        row
        | {
            "trials": candidates["trial"].tolist(),
            "values": [number(value) for value in columns[row["proxy"]]],
            "errors": [number(value) for value in candidates["val_error_mean"]],
        }
        for row in strongest
        if row["proxy"] in columns
    ]
