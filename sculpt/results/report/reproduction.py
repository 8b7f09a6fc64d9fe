"""How a study can be run again, and what its numbers depend on."""

from collections import Counter
from typing import Any

import pandas as pd
import yaml

from sculpt.config import Sparsity
from sculpt.record import Device, TrialRecord
from sculpt.results.records import Results


def reproduction(
    results: Results, table: pd.DataFrame, records: list[TrialRecord], common: int | None
) -> dict[str, Any]:
    """Return commands, the study as a file, and the facts behind the numbers.

    Args:
        results:
            The study.
        table:
            `Results.trials`.
        records:
            Those that were read; devices and versions are theirs.
        common:
            The budget of all candidates, if they have one.
    """
    config = results.config
    # Where things lie is not part of what is run, and nobody's business: elsewhere it is elsewhere.
    places: dict[str, Any] = {
        "storage": True,
        "artifacts": True,
        "data": {"root"},
        "pruning": {"data": {"root"}},
    }
    document = config.model_dump(mode="json", exclude=places)
    file = f"{config.study}.yaml"
    root = " --set data.root=DIR" if "root" in config.data.options else ""
    search = config.search
    budget = str(config.budget)
    if isinstance(config.budget, Sparsity):
        budget = f"sparsity {config.budget.sparsity:.2%} of each network"
    elif "budget" in config.space.parameters:
        budget = "sampled with the space"
    elif budget == "base" and common:
        budget = f"base, {common:,} parameters"
    seconds = [table, results.confirmation]
    seeds = dict.fromkeys(tuple(record.seeds) for record in records)
    return {
        "file": file,
        "yaml": yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100),
        "commands": [f"sculpt run {file}{root}", f"sculpt rank {file}", f"sculpt report {file}"],
        "data": config.data.name,
        "fingerprints": _distinct(record.data_fingerprint for record in records),
        "seeds": [", ".join(map(str, listed)) for listed in seeds if listed],
        "counting": config.counting,
        "budget": budget,
        "epochs": config.training.epochs,
        "sampler": search.sampler,
        "protocol": config.training.protocol,
        "devices": _distinct(_device(record.device) for record in records),
        "versions": _distinct(_versions(record.versions) for record in records),
        "seconds": float(sum(_sum(part, "seconds") for part in seconds)),
        "records": len(records),
    }


def _sum(table: pd.DataFrame, column: str) -> float:
    if column not in table:
        return 0.0
    return float(pd.to_numeric(table[column], errors="coerce").fillna(0).sum())


def _distinct(values: Any) -> list[str]:
    """Return texts by how often they occur, the most frequent first, without empty ones."""
    return [text for text, _ in Counter(str(v) for v in values if v).most_common()]


def _device(device: Device) -> str:
    plural = "s" * (device.threads != 1)
    return f"{device.type}, {device.name}, {device.threads} thread{plural}"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
