"""Layers and learning curves, read from the records of a few trials: records are large."""

from dataclasses import replace
from itertools import chain
from math import prod
from statistics import mean, stdev
from typing import TypedDict

from sculpt.errors import StorageError
from sculpt.record import TrialRecord
from sculpt.results.ranking import Ranking
from sculpt.results.records import Results
from sculpt.results.rows import significant

MOST_RECORDS = 60
FIRST_RANKED = 25
"""Read before those of the front, which may be long; the rest of the best come after it."""


class Layer(TypedDict):
    """Kept weights of a layer, and its distance from isometry."""

    name: str
    size: int
    kept: int
    density: float
    before: float
    after: float
    bound: float


class Curve(TypedDict):
    """Validation errors of `n` seeds after each epoch; no `std` of one seed."""

    epochs: list[int]
    mean: list[float]
    std: list[float] | None
    n: int


class Details(TypedDict):
    """Layers and curve from a trial's record; `problem` says why it could not be read."""

    layers: list[Layer]
    curve: Curve | None
    problem: str | None


def chosen_details(
    results: Results, document: Ranking, front: list[int | str]
) -> tuple[dict[int | str, Details], list[TrialRecord]]:
    """Read the records that a report shows: the base's, the confirmed, the best, the front's.

    Returns:
        Details by trial, and all records read without their parts that are large.
    """
    ranked = [row["trial"] for row in document["ranking"]]
    confirmed = document["confirmation"]["selected"] if document["confirmation"] else []
    base = [trial for trial in ranked if trial == "base"]
    first, rest = ranked[:FIRST_RANKED], ranked[FIRST_RANKED:]
    wanted = dict.fromkeys(chain(base, confirmed, first, front, rest))
    finished = set(ranked)
    details: dict[int | str, Details] = {}
    records = []
    for trial in [trial for trial in wanted if trial in finished][:MOST_RECORDS]:
        try:
            record = results.typed_record(trial)
        except StorageError as error:
            details[trial] = {"layers": [], "curve": None, "problem": str(error)}
            continue
        details[trial] = {"layers": layers_of(record), "curve": curve_of(record), "problem": None}
        records.append(replace(record, runs=[], layers=[], config={}))
    return details, records


def layers_of(record: TrialRecord) -> list[Layer]:
    """Return kept weights and isometry of every layer, in forward order."""
    return [
        {
            "name": layer.name.removesuffix(".weight"),
            "size": prod(layer.shape),
            "kept": layer.kept,
            "density": layer.kept / prod(layer.shape),
            "before": layer.orthogonality_before,
            "after": layer.orthogonality_after,
            "bound": layer.orthogonality_bound,
        }
        for layer in record.layers
    ]


def curve_of(record: TrialRecord) -> Curve | None:
    """Return the validation error after each evaluated epoch: mean and spread over the seeds.

    A seed that diverged is trained no more, and keeps the error that it ended with.
    """
    histories = [{e.epoch: e.val_error for e in run.history if e.epoch} for run in record.runs]
    seeds = [history for history in histories if history]
    if not seeds:
        return None
    # From the first epoch on that every seed has come to.
    start = max(map(min, seeds))
    epochs = [epoch for epoch in sorted(set().union(*seeds)) if epoch >= start]
    columns = [[seed[max(e for e in seed if e <= epoch)] for seed in seeds] for epoch in epochs]
    several = len(seeds) > 1
    return {
        "epochs": epochs,
        "mean": [significant(mean(column)) for column in columns],
        "std": [significant(stdev(column)) for column in columns] if several else None,
        "n": len(seeds),
    }
