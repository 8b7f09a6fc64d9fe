"""Layers and learning curves, read from the records of a few trials: records are large."""

from itertools import chain
from math import prod
from statistics import mean, stdev
from typing import Any

from sculpt.errors import StorageError
from sculpt.results.numbers import number, numbers
from sculpt.results.records import Results

MOST_RECORDS = 60
FIRST_RANKED = 25
"""Read before those of the front, which may be long; the rest of the best come after it."""


def chosen_details(
    results: Results, document: dict[str, Any], front: list[int | str]
) -> tuple[dict[int | str, dict[str, Any]], list[dict[str, Any]]]:
    """Read the records that a report shows: the base's, the confirmed, the best, the front's.

    Returns:
        By trial its `layers`, `curve` and `problem` (why there are none), and all records read
        without their parts that are large.
    """
    ranked = [row["trial"] for row in document["ranking"]]
    confirmed = (document["confirmation"] or {}).get("selected", [])
    base = [trial for trial in ranked if trial == "base"]
    first, rest = ranked[:FIRST_RANKED], ranked[FIRST_RANKED:]
    wanted = dict.fromkeys(chain(base, confirmed, first, front, rest))
    finished = set(ranked)
    details: dict[int | str, dict[str, Any]] = {}
    records = []
    for trial in [trial for trial in wanted if trial in finished][:MOST_RECORDS]:
        try:
            record = results.record(trial)
        except StorageError as error:
            details[trial] = {"layers": [], "curve": None, "problem": str(error)}
            continue
        details[trial] = {"layers": layers_of(record), "curve": curve_of(record), "problem": None}
        records.append({k: v for k, v in record.items() if k not in ("runs", "layers", "config")})
    return details, records


def layers_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what pruning left of every layer, in forward order; older records lack some."""
    rows = []
    for layer in record.get("layers") or []:
        size = prod(layer.get("shape") or [0])
        kept = int(layer.get("kept") or 0)
        rows.append(
            {
                "name": str(layer.get("name", "?")).removesuffix(".weight"),
                "size": size,
                "kept": kept,
                "density": number(kept / size) if size else None,
                "before": number(layer.get("orthogonality_before")),
                "after": number(layer.get("orthogonality_after")),
                "bound": number(layer.get("orthogonality_bound")),
            }
        )
    return rows


def curve_of(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the validation error after each evaluated epoch: mean and spread over the seeds.

    A seed that diverged is trained no more, and keeps the error that it ended with.
    """
    seeds = []
    for run in record.get("runs") or []:
        history = run.get("history") or []
        found = {row.get("epoch"): number(row.get("val_error")) for row in history}
        seeds.append({k: v for k, v in found.items() if k and v is not None})
    seeds = [seed for seed in seeds if seed]
    if not seeds:
        return None
    epochs = sorted(set().union(*seeds))
    columns = [_column(seeds, epoch) for epoch in epochs]
    start = next((i for i, column in enumerate(columns) if len(column) == len(seeds)), 0)
    columns = [column for column in columns[start:] if column]
    return {
        "epochs": epochs[start:],
        "mean": numbers(mean(column) for column in columns),
        "std": numbers(stdev(c) if len(c) > 1 else 0 for c in columns) if len(seeds) > 1 else None,
        "n": len(seeds),
    }


def _column(seeds: list[dict[int, float]], epoch: int) -> list[float]:
    """Return each seed's error after an epoch, or its last one before."""
    column = []
    for seed in seeds:
        before = [known for known in seed if known <= epoch]
        if before:
            column.append(seed[max(before)])
    return column
