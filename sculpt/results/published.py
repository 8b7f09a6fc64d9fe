"""Published figures and the measured ones, side by side in a file beside the study."""

import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import yaml

from sculpt.documents import Document
from sculpt.errors import ConfigError
from sculpt.record import TrialRecord
from sculpt.results.against_published import (
    FAMILIES,
    AgainstPublished,
    against_published,
    same_parameters,
)
from sculpt.results.records import Results
from sculpt.results.rows import significant
from sculpt.typed_json import to_json

INTERVAL: tuple[Literal["mean", "low", "high"], ...] = ("mean", "low", "high")


def measured_path(study_file: str | Path) -> Path:
    """Return where a study's measured figures are written: `NAME.measured.yaml` beside it."""
    return Path(study_file).with_suffix(".measured.yaml")


def write_measured(results: Results, path: Path) -> Document:
    """Write the figures that a study compares, measured and published, and return them.

    Raises:
        ConfigError: the study compares nothing.
    """
    document = measured_figures(results)
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100))
    return document


def measured_figures(results: Results) -> Document:
    """Return every finished trial's figures beside the published ones, as a JSON document.

    A figure has n, mean and std over the seeds (element by element where it is a list of
    numbers), or the seeds' values where it is no number. Where test errors are published, each
    candidate has its differences from the base, with interval and verdict.

    Raises:
        ConfigError: the study compares nothing.
    """
    published = results.config.published
    if published is None:
        raise ConfigError(
            f"study {results.config.study!r} must have a section `published` with `figures` to "
            "be compared, but has none"
        )
    rows = []
    first: TrialRecord | None = None
    differences = _differences(against_published(results))
    for trial in (row["trial"] for row in results.finished):
        record = results.typed_record(trial)
        first = first or record
        params = record.params or "base"
        same = (row for row in published.rows if same_parameters(row.get("params"), params))
        expected, runs = next(same, {}), to_json(record.runs)
        figures = {}
        for figure in published.figures:
            values = [_look_up(run, figure) for run in runs]
            figures[figure] = _summary(values)
            if figure in expected:
                figures[figure] = {"published": expected[figure]} | figures[figure]
        rows.append({"params": params, "figures": figures} | differences.get(trial, {}))
    rows.sort(key=lambda row: str(row["params"]))
    document: Document = {"study": results.config.study, "source": published.source}
    if first:
        document |= {
            "data": results.config.data.name,
            "seeds": first.seeds,
            "epochs": results.config.training.epochs,
            "device": to_json(first.device),
            "versions": first.versions,
        }
    return document | {"trials": results.tally(), "rows": rows}


def _differences(found: AgainstPublished | None) -> dict[int | str, Document]:
    """Return each finished candidate's differences from the base, by trial."""
    rows: dict[int | str, Document] = {}
    for row in found["rows"] if found else []:
        if row["role"] == "base" or row["trial"] is None:
            continue
        known: Document = {}
        if row["published"] and row["published"]["difference"] is not None:
            known["published"] = row["published"]["difference"]
        for family in FAMILIES:
            if (measured := row[family]) and (difference := measured["difference"]):
                ends = {key: difference[key] for key in INTERVAL}
                # To six digits, but not of what the subtraction left where there is no difference.
                interval = {key: significant(round(end, 12) + 0.0) for key, end in ends.items()}
                known[family] = interval | {"n": measured["n"], "verdict": measured["verdict"]}
        rows[row["trial"]] = {"difference": known} if known else {}
    return rows


def _look_up(node: Any, path: str) -> Any:
    """Return the value at a dotted path, each element's of a list; None for what is not there.

    That is a step that this trial did not take, such as the repair of the base.
    """
    if isinstance(node, list):
        return [_look_up(element, path) for element in node]
    if not path or node is None:
        return node
    key, _, rest = path.partition(".")
    return _look_up(node.get(key), rest) if isinstance(node, dict) else None


def _summary(values: list[Any]) -> Document:
    count = {"n": len(values)}
    if all(_is_number(value) for value in values):
        return count | _statistics(values) | {"values": [significant(v) for v in values]}
    columns = list(zip(*values, strict=False)) if all(isinstance(v, list) for v in values) else []
    if columns and all(_is_number(value) for column in columns for value in column):
        both = [_statistics(list(column)) for column in columns]
        return count | {key: [column[key] for column in both] for key in ("mean", "std")}
    return count | {"values": values}


def _statistics(values: list[float]) -> dict[str, float | None]:
    return {
        "mean": significant(mean(values)),
        "std": significant(stdev(values)) if len(values) > 1 else None,
    }


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and math.isfinite(value)
