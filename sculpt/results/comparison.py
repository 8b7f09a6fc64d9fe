"""Networks of any studies side by side: what they reached, and which settings they differ in."""

import re
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, get_args

from sculpt.config.opponents import Kind
from sculpt.documents import Document, flatten
from sculpt.errors import InputError
from sculpt.record import TrialRecord
from sculpt.results.records import Results, open_results
from sculpt.results.statistics import (
    Comparison,
    Judgement,
    compare_paired,
    compare_unpaired,
    judge_all,
)
from sculpt.typed_json import to_json
from sculpt.units import Metric


class Setting(TypedDict):
    """A setting that differs, and its value in each network."""

    key: str
    values: list[Any]


class ComparisonDocument(TypedDict):
    """Networks side by side (docs/reference/json.md)."""

    networks: list[Document]
    """Fields of each record, its difference from the first, and the verdict."""
    settings: list[Setting]
    metric: NotRequired[dict[str, Any]]
    """Metric of the first network, if not the classification error; see `units.Metric`."""


SHOWN = (
    *("study", "trial", "role", "params", "val_error", "seeds", "counting", "budget"),
    *("dense_parameters", "kept_parameters", "sparsity", "dense_macs", "kept_macs"),
    *("epochs", "seconds", "device", "versions"),
)
"""Fields of a record that are shown as they are."""

APART = (
    *("study", "space.", "search.", "storage", "artifacts", "published", "opponents"),
    *("data.root", "data.download"),
)
"""Settings of a study and not of a network, whose own parameters have been put in place."""

TRIAL = re.compile(rf":(\d+|base|best|(?:{'|'.join(get_args(Kind))})\b.*)$")
"""What follows a study: a trial. An opponent's label may have colons of its own (`2:4`)."""


def compare(references: Sequence[str], storage: str | None = None) -> ComparisonDocument:
    """Compare finished trials of any studies with the first of them, as a JSON document.

    Args:
        references: At least two of `STUDY` or `STUDY:TRIAL`, where STUDY is a study file or a name,
            and TRIAL a number, `base`, an opponent's label, or `best` (that of a study alone).
        storage: Where the studies are kept, if not where each of them says.

    Returns:
        docs/reference/json.md. Validation errors are compared seed by seed where both networks were
        trained with the same seeds, else by Welch's t; not at all where their images differ.
        Verdicts are Holm-corrected over the comparisons.

    Raises:
        InputError: fewer than two are given, one is given twice, or one is not finished.
        StorageError: there is no such study.
    """
    if len(references) < 2:
        raise InputError(
            "there must be at least two networks to compare, STUDY or STUDY:TRIAL, but got "
            f"{', '.join(references) or 'none'}"
        )
    networks = [_find(reference, storage) for reference in references]
    names = [f"{network.study}:{network.trial}" for network in networks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"networks to compare must differ, but {', '.join(twice)} is given twice")
    first, *others = networks
    judged = judge_all([_compare_two(other, first) for other in others])
    nothing: Judgement = {"difference": None, "verdict": "reference"}
    rows: list[Document] = [
        {key: to_json(getattr(network, key)) for key in SHOWN} | dict(judgement)
        for network, judgement in zip(networks, [nothing, *judged], strict=True)
    ]
    for row, network in zip(rows[1:], others, strict=True):
        if not _same_images(network, first):
            row["verdict"] = "other images"
        elif not _same_metric(network, first):
            row["verdict"] = "other metric"
    return {
        "networks": rows,
        "settings": _differences([n.config for n in networks]),
        **Metric.of_settings(first.config).in_document,  # type: ignore[typeddict-item]
    }


def split_reference(reference: str) -> tuple[str, str]:
    """Return the study and the trial that `STUDY` or `STUDY:TRIAL` names."""
    if found := TRIAL.search(reference):
        return reference[: found.start()], found[1]
    study, colon, trial = reference.rpartition(":")
    return (study, trial) if colon else (reference, "best")


def _find(reference: str, storage: str | None) -> TrialRecord:
    """Return the record that `STUDY` or `STUDY:TRIAL` names."""
    study, trial = split_reference(reference)
    results: Results = open_results(study, storage).snapshot()
    return results.typed_record(int(trial) if trial.isdigit() else trial)


def _compare_two(one: TrialRecord, other: TrialRecord) -> Comparison | None:
    if not _same_images(one, other) or not _same_metric(one, other):
        return None
    compared = compare_paired if one.seeds == other.seeds else compare_unpaired
    return compared(one.val_errors, other.val_errors)


def _same_images(one: TrialRecord, other: TrialRecord) -> bool:
    return one.data_fingerprint == other.data_fingerprint


def _same_metric(one: TrialRecord, other: TrialRecord) -> bool:
    return Metric.of_settings(one.config) == Metric.of_settings(other.config)


def _differences(configs: list[Document]) -> list[Setting]:
    """Return every setting of a trial that is not the same in all configurations."""
    flat = [flatten(config) for config in configs]
    keys = sorted({key for config in flat for key in config})
    return [
        {"key": key, "values": [config.get(key) for config in flat]}
        for key in keys
        if not key.startswith(APART) and len({repr(config.get(key)) for config in flat}) > 1
    ]
