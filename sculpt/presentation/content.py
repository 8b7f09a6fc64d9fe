"""Content of a report as plain data, before it is drawn or marked up."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TypedDict

import numpy as np

from sculpt.documents import Document
from sculpt.dominance import non_dominated
from sculpt.presentation.details import Details, chosen_details
from sculpt.presentation.reproduction import Reproduction, reproduction
from sculpt.quantities import MILESTONES
from sculpt.registry import OBJECTIVES
from sculpt.results.against_published import same_parameters
from sculpt.results.pareto.fronts import Objective, described
from sculpt.results.proxies import ProxyRow, measures
from sculpt.results.ranking import UNRANKED, Ranking, RankRow, UnrankedRow, rank, without_result
from sculpt.results.records import Results
from sculpt.results.rows import budgets_of, of_every_seed, rounded, spread
from sculpt.results.tables import configuration
from sculpt.results.tables.ranking import ranking_table
from sculpt.results.verdict import Verdict, verdict_of
from sculpt.table import Column, Table
from sculpt.units import Error, Metric, count, macs

SHOWN_PROXIES = 6
"""The strongest; the others are not drawn."""

SIGNALS = ("jacobian_mean", "orthogonality_score", "effective_parameters")


@dataclass(frozen=True)
class Trial:
    """A finished trial: its row of the ranking, and further values for figures."""

    row: RankRow
    test: Error | None
    """None unless every seed has a test error."""
    group: int | None
    """The budget whose front it competes for; None where all compete."""
    values: dict[str, float | None]
    """By measured objective."""
    signal: dict[str, dict[str, float | None]]
    """By step, the quantities in `SIGNALS`."""
    facts: dict[str, str]
    """Shown beside the pointer and in the panel, by term."""

    @property
    def label(self) -> int | str:
        """A candidate's number, or `base`."""
        return self.row["trial"]

    @property
    def is_base(self) -> bool:
        """Base or candidate."""
        return self.row["role"] == "base"

    @property
    def is_candidate(self) -> bool:
        """Candidate, or base or opponent."""
        return self.row["role"] == "candidate"

    @property
    def name(self) -> str:
        """Display name."""
        if self.is_candidate:
            return f"trial {self.label}"
        return "dense base" if self.is_base else str(self.label)

    @property
    def params(self) -> str:
        """Its configuration."""
        return configuration(self.row["params"]) or ""

    def error(self, kind: str) -> Error | None:
        """Return its validation error (`val`), or its test error (`test`)."""
        return self.test if kind == "test" else self.row["val_error"]


class PublishedPoint(TypedDict):
    """A published error of a configuration that finished here."""

    trial: int | str
    sparsity: float
    test: float | None
    val: float | None


@dataclass(frozen=True)
class Published:
    """Figures from elsewhere that can be set beside these."""

    source: str
    points: list[PublishedPoint]
    unmatched: int
    """Configurations that have not finished here."""


@dataclass(frozen=True)
class Content:
    """Content of a report. Errors and sparsities are fractions, as in every JSON document."""

    study: str
    verdict: Verdict
    document: Ranking
    """Counts, ranking, confirmation, proxies."""
    metric: Metric
    """What its errors are."""
    error: str
    """Error that is set against sparsity: `test` if the study's protocol reads test images."""
    objectives: list[Objective]
    """Measured ones."""
    axes: list[str]
    """Up to two of them, those of the study first."""
    budgets: list[int]
    """Each has a front of its own; none where all compete."""
    fronts: dict[str, list[int | str]]
    """Trials that no other of their budget beats, by the objectives' `front_key`."""
    ranking: Table
    trials: list[Trial]
    """Finished ones, base, candidates and opponents, in the order of the ranking."""
    unfinished: list[UnrankedRow]
    """Interrupted ones, too."""
    rungs: dict[int | str, list[tuple[int, float]]]
    """Epochs and validation errors of the first seed, by stopped trial."""
    details: dict[int | str, Details]
    """Layers and learning curve of those whose records were read; or what is the problem."""
    published: Published | None
    proxies: list[tuple[ProxyRow, dict[int | str, float | None]]]
    """The strongest, each with its value for every candidate."""
    reproduction: Reproduction

    @property
    def groups(self) -> list[int | None]:
        """The budgets that have a front each; only None where all compete."""
        return [*self.budgets] or [None]

    @property
    def base(self) -> Trial | None:
        """The dense base, if it has finished."""
        return next((trial for trial in self.trials if trial.is_base), None)

    @property
    def candidates(self) -> list[Trial]:
        """The finished candidates, best first."""
        return [trial for trial in self.trials if trial.is_candidate]

    @property
    def opponents(self) -> list[Trial]:
        """The finished opponents, best first."""
        return [trial for trial in self.trials if trial.row["role"] == "opponent"]

    @property
    def selected(self) -> int | str | None:
        """The trial that is shown until another is chosen: the best candidate, else the base."""
        return next((trial.label for trial in self.candidates + self.trials), None)


def collect(results: Results) -> Content:
    """Collect the content of a report on a study."""
    results = results.snapshot()
    document, finished = rank(results), results.finished
    names = OBJECTIVES.names()
    measured = [n for n in names if any(row.get(n) is not None for row in finished)]
    # The pair that the front is over at first; a study of one objective gets a cost.
    wanted = dict.fromkeys([*results.config.search.objectives, "val_error", "kept_macs"])
    axes = [name for name in wanted if name in measured][:2]
    error = "test" if results.config.training.protocol == "lowest_test" else "val"
    budgets = budgets_of(results.config, finished)
    budgets = budgets if len(budgets) > 1 else []
    opposing = [row for row in results.opponent_rows if row["state"] == "complete"]
    known = {row["trial"]: row for row in [*finished, *opposing]}
    tests = {trial: spread(of_every_seed(row.get("test_errors"))) for trial, row in known.items()}
    ranking = ranking_table(document, tests if error == "test" else None)
    trials = _trials(document, ranking, known, tests, measured, bool(budgets))
    objectives = [described(name, results.metric) for name in measured]
    fronts = _fronts(trials, objectives)
    places = [measured.index(name) for name in axes]
    front = fronts[front_key(places[0], places[-1])] if places else []
    details, records = chosen_details(results, document, front)
    return Content(
        study=results.config.study,
        verdict=verdict_of(document),
        document=document,
        metric=results.metric,
        error=error,
        objectives=objectives,
        axes=axes,
        budgets=budgets,
        fronts=fronts,
        ranking=ranking,
        trials=trials,
        unfinished=without_result(
            [*results.opponent_rows, *results.rows], (*UNRANKED, "interrupted")
        ),
        rungs={
            row["trial"]: [(int(epoch), error) for epoch, error in row["rungs"].items()]
            for row in results.rows
            if row["state"] == "stopped" and row.get("rungs")
        },
        details=details,
        published=_published(results, trials),
        proxies=_proxies(document, finished),
        reproduction=reproduction(results, records, document["budget"]),
    )


def _trials(
    document: Ranking,
    ranking: Table,
    known: dict[int | str, Document],
    tests: dict[int | str, Error | None],
    measured: Sequence[str],
    several_budgets: bool,
) -> list[Trial]:
    dense = [
        Column("dense parameters", lambda row: known[row["trial"]]["dense_parameters"], count),
        Column("dense MACs", "dense_macs", macs),
    ]
    pointed_at = Table("", [*ranking.columns, *dense], ranking.rows)
    trials = []
    for row in document["ranking"]:
        found = known[row["trial"]]
        # The base is not pruned to a budget, so it competes where it happens to have one.
        size = row["kept_parameters"] if row["role"] == "base" else row["budget"]
        group = size if several_budgets else None
        values = {name: rounded(found.get(name)) for name in measured}
        signal = {
            step: {name: rounded(found.get(f"{step}_{name}")) for name in SIGNALS}
            for step in MILESTONES
        }
        facts = pointed_at.facts(row, "trial", "parameters")
        trials.append(Trial(row, tests[row["trial"]], group, values, signal, facts))
    return trials


def _fronts(trials: list[Trial], objectives: list[Objective]) -> dict[str, list[int | str]]:
    """Return the front of each two objectives, which are named by their places: "0,2".

    Opponents are on none: they are there to be beaten.
    """
    trials = [trial for trial in trials if trial.row["role"] != "opponent"]
    values = [[trial.values[o["name"]] for o in objectives] for trial in trials]
    costs = np.array(values, dtype=float).reshape(len(trials), len(objectives))
    costs *= [1 if o["direction"] == "minimize" else -1 for o in objectives]
    groups = {
        group: [place for place, trial in enumerate(trials) if trial.group == group]
        for group in dict.fromkeys(trial.group for trial in trials)
    }
    found: dict[str, list[int | str]] = {}
    for one, other in combinations_with_replacement(range(len(objectives)), 2):
        front = found.setdefault(front_key(one, other), [])
        for places in groups.values():
            best = non_dominated(costs[places][:, [one, other]])
            front += [trials[place].label for place in np.array(places)[best]]
    return found


def front_key(one: int, other: int) -> str:
    """Return the key of two objectives' front; either may be the first."""
    return f"{min(one, other)},{max(one, other)}"


def _published(results: Results, trials: list[Trial]) -> Published | None:
    """Return published errors of configurations that finished here, for their sparsity."""
    published = results.config.published
    if published is None:
        return None
    found: list[PublishedPoint] = []
    trials = [trial for trial in trials if trial.row["role"] != "opponent"]
    unmatched = 0
    for row in published.rows:
        test, val = rounded(row.get("test_error")), rounded(row.get("val_error"))
        if test is None and val is None:
            continue
        given = row.get("params")
        same = (
            t for t in trials if same_parameters("base" if t.is_base else t.row["params"], given)
        )
        if trial := next(same, None):
            sparsity = trial.row["sparsity"]
            found.append({"trial": trial.label, "sparsity": sparsity, "test": test, "val": val})
        else:
            unmatched += 1
    return Published(published.source, found, unmatched) if found or unmatched else None


def _proxies(
    document: Ranking, finished: list[Document]
) -> list[tuple[ProxyRow, dict[int | str, float | None]]]:
    strongest = [row for row in document["proxies"] if row["rho"] is not None][:SHOWN_PROXIES]
    candidates = [row for row in finished if row["role"] == "candidate"]
    trials, columns = [row["trial"] for row in candidates], measures(candidates)
    return [
        (row, dict(zip(trials, map(rounded, columns[row["proxy"]]), strict=True)))
        for row in strongest
    ]
