"""Published test errors beside the measured ones: the sign of every row, and what it carries."""

from typing import Any, Literal, TypedDict

from sculpt.config import Params, Published
from sculpt.documents import Document
from sculpt.errors import InputError
from sculpt.record import Role, SeedRecord
from sculpt.results.records import Results
from sculpt.results.rows import of_every_seed, rounded, spread
from sculpt.results.statistics import Difference, judge
from sculpt.units import Error

Family = Literal["lowest_test", "selected_test", "val"]
FAMILIES: tuple[Family, ...] = ("lowest_test", "selected_test", "val")
"""Kinds of errors by which candidates are compared with the base, each corrected by itself."""

Errors = dict[Family, list[float]]
"""Errors per seed of each family; empty unless known for every seed."""


class Figure(TypedDict):
    """Published figures of a configuration, as fractions."""

    test_error: float
    difference: float | None
    """From the base; None where that was not published."""


class JudgedError(Error):
    """Errors of one family, and what is said of their difference from the base."""

    difference: Difference | None
    verdict: str | None
    """None where the base has no such errors."""


class PublishedRow(TypedDict):
    """A configuration that was published, or run, or both."""

    trial: int | str | None
    """None where it has not finished here."""
    role: Role
    params: Params
    kept_macs: float | None
    kept_parameters: int | None
    published: Figure | None
    lowest_test: JudgedError | None
    selected_test: JudgedError | None
    val: JudgedError | None


class AgainstPublished(TypedDict):
    """Published and measured differences side by side (docs/reference/json.md)."""

    source: str
    published_protocol: Literal["lowest_test"] | None
    compared: int
    unread: list[int | str]
    rows: list[PublishedRow]


def against_published(results: Results) -> AgainstPublished | None:
    """Return published and measured differences as a JSON document (docs/reference/json.md).

    `lowest_test` is the published protocol, the lowest test error of all evaluations of a seed;
    `selected_test` the test error at the evaluation with the lowest validation error; `val` the
    validation error that candidates are ranked by. The first two are there only where the study
    read the test images at every evaluation, and the second only where a trial's record can be
    read. Each is compared with the base seed by seed, and corrected for all finished candidates.

    Returns:
        Rows in the order of the publication, the base first and what it does not have last; None
        unless the study has published test errors.
    """
    published = results.config.published
    known = published_errors(published) if published else []
    if published is None or not known:
        return None
    finished = {row["trial"]: row for row in results.finished}
    reads_test = results.config.training.protocol == "lowest_test"
    errors, unread = _errors_of(results, finished, reads_test)
    judged = _judged(errors)

    def row_of(
        role: Role, trial: int | str | None, params: Any, figure: Figure | None = None
    ) -> PublishedRow:
        found = finished.get(trial)
        return {
            "trial": trial,
            "role": role,
            "params": params,
            "kept_macs": float(found["kept_macs"]) if found else None,
            "kept_parameters": found["kept_parameters"] if found else None,
            "published": figure,
            **(judged[trial] if found else dict.fromkeys(FAMILIES)),  # type: ignore[typeddict-item]
        }

    base_error = next((error for params, error in known if params == "base"), None)
    base: Figure | None = None
    if base_error is not None:
        base = {"test_error": base_error, "difference": None}
    own = "base" if "base" in finished else None
    rows = [row_of("base", own, results.config.model.options, base)]
    left = {trial: row["params"] for trial, row in finished.items() if trial != "base"}
    for params, error in known:
        if params == "base":
            continue
        # Rounded: a difference of decimal numbers has more digits than were published.
        difference = None if base_error is None else rounded(error - base_error)
        figure: Figure = {"test_error": error, "difference": difference}
        trials = [trial for trial, found in left.items() if same_parameters(found, params)]
        for trial in trials or [None]:
            shown = params if trial is None else left.pop(trial)
            rows.append(row_of("candidate", trial, shown, figure))
    rows += [row_of("candidate", trial, params) for trial, params in left.items()]
    return {
        "source": published.source,
        "published_protocol": "lowest_test" if reads_test else None,
        "compared": sum(trial != "base" for trial in finished),
        "unread": unread,
        "rows": rows,
    }


def published_errors(published: Published) -> list[tuple[Any, float]]:
    """Return configurations that have a published test error, each with that error."""
    found = [(row.get("params"), rounded(row.get("test_error"))) for row in published.rows]
    return [(params, error) for params, error in found if error is not None]


def same_parameters(one: Any, other: Any) -> bool:
    """Compare two configurations; a parameter that is null counts as not set."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return bool(one == other)
    mine, theirs = ({k: v for k, v in p.items() if v is not None} for p in (one, other))
    return mine == theirs


def _errors_of(
    results: Results, finished: dict[Any, Document], reads_test: bool
) -> tuple[dict[Any, Errors], list[int | str]]:
    """Return every trial's errors, and the trials whose records cannot be read."""
    errors: dict[Any, Errors] = {}
    unread: list[int | str] = []
    for trial, row in finished.items():
        val = of_every_seed(row.get("val_errors"))
        errors[trial] = {"val": val, "lowest_test": [], "selected_test": []}
        if not reads_test:
            continue
        errors[trial]["lowest_test"] = of_every_seed(row.get("test_errors"))
        try:
            runs = results.typed_record(trial).runs
        except InputError:  # it is missing, or where it lies cannot be asked from this machine
            unread.append(trial)
            continue
        errors[trial]["selected_test"] = of_every_seed(map(selected_test_error, runs))
    return errors, unread


def selected_test_error(run: SeedRecord) -> float | None:
    """Return a seed's test error at the evaluation of lowest validation error, the first at ties.

    None where an evaluation did not read the test images.
    """
    if not run.history or any(epoch.test_error is None for epoch in run.history):
        return None
    return min(run.history, key=lambda epoch: epoch.val_error).test_error


def _judged(errors: dict[Any, Errors]) -> dict[Any, dict[Family, JudgedError | None]]:
    """Return each trial's families: mean and spread, the difference from the base, the verdict."""
    base: Errors = errors.get("base", {})
    candidates = [trial for trial in errors if trial != "base"]
    found: dict[Any, dict[Family, JudgedError | None]] = {
        trial: dict.fromkeys(FAMILIES) for trial in errors
    }
    for family in FAMILIES:
        reference = base.get(family, [])
        if measured := spread(reference):
            found["base"][family] = {**measured, "difference": None, "verdict": "base"}
        pairs = [(errors[trial][family], reference) for trial in candidates]
        for trial, judgement in zip(candidates, judge(pairs, len(pairs)), strict=True):
            if not reference:
                judgement["verdict"] = None  # there is nothing to compare it with
            if measured := spread(errors[trial][family]):
                found[trial][family] = {**measured, **judgement}
    return found


def families_shown(found: AgainstPublished) -> list[Family]:
    """Return the families of errors to set beside published ones: of test images where known."""
    return ["val"] if found["published_protocol"] is None else ["lowest_test", "selected_test"]
