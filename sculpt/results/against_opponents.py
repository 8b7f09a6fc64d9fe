"""Candidates against the opponents of a study: the best dense network, and their own controls."""

import json
from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

from sculpt.config import Study
from sculpt.config.arms import with_arm
from sculpt.config.opponents import Control, is_near
from sculpt.documents import Document
from sculpt.results.records import Results
from sculpt.results.rows import by_error, whole
from sculpt.results.statistics import Difference, judge

Rival = Literal["dense", "shuffled", "erk"]


class OpposedRow(TypedDict):
    """A candidate against an opponent (docs/reference/json.md)."""

    trial: int
    arm: Rival
    """The best dense network of its size, or its own control."""
    against: str
    """The label of the opponent, or `base`."""
    difference: Difference | None
    verdict: str | None


def against_opponents(results: Results) -> list[OpposedRow]:
    """Return the comparisons of finished candidates with opponents, by validation errors.

    Each candidate with dense opponents within `NEAR` of its budget is compared with the best of
    these and the base, by mean error, and each with its own controls: opponents that differ from it
    by their arm alone. Each family of comparisons is corrected for its number.

    Returns:
        Rows by arm, and within it in the order of the ranking.
    """
    candidates = sorted(
        (row for row in results.finished if row["role"] == "candidate"),
        key=by_error,
    )
    opponents = [row for row in results.opponent_rows if row["state"] == "complete"]
    bases = [row for row in results.finished if row["role"] == "base"]
    dense = [row for row in opponents if row["arm"] == "dense"]
    controls = own_controls(results.config, candidates)
    known = {row["trial"]: row for row in opponents}
    rows: list[OpposedRow] = []
    for arm in get_args(Rival):
        pairs = []
        for row in candidates:
            if arm != "dense":
                rival = known.get(controls[arm].get(row["trial"], ""))
            elif rival := best_dense(dense, row, results.config):  # or the base alone is no news
                rival = best_dense([*bases, rival], row, results.config)
            if rival is not None:
                pairs.append((row, rival))
        judged = judge([(row["val_errors"], rival["val_errors"]) for row, rival in pairs])
        for (row, rival), judgement in zip(pairs, judged, strict=True):
            rows.append({"trial": row["trial"], "arm": arm, "against": rival["trial"], **judgement})
    return rows


def best_dense(dense: Sequence[Document], candidate: Document, config: Study) -> Document | None:
    """Return the dense network with the lowest mean error of those of a candidate's size; None
    without one."""
    near = (row for row in dense if is_near(row, candidate, by_macs=config.counts_macs))
    return min(near, key=by_error, default=None)


def own_controls(
    config: Study, candidates: Sequence[Document]
) -> dict[Control, dict[int | str, str]]:
    """Return the opponents that differ from a candidate by their arm alone: trial to label."""
    found: dict[Control, dict[int | str, str]] = {}
    for control in get_args(Control):
        found[control] = {}
        listed = [opponent for opponent in config.opponents if opponent.name == control]
        studies = {
            _settings(with_arm(config.with_parameters(opponent.options), control)): opponent.label
            for opponent in listed
        }
        for row in candidates if studies else []:
            study = with_arm(config.with_parameters(row["params"]), control)
            if label := studies.get(_settings(study)):
                found[control][row["trial"]] = label
    return found


def _settings(study: Study) -> str:
    """Return what a network is made of as text, in which 2.0, of a range, is 2."""
    text = study.model_dump_json(include={"model", "budget", "pruning", "training"})
    return json.dumps(json.loads(text, parse_float=lambda number: whole(float(number))))
