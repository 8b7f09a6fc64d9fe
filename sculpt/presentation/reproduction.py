"""Commands and file to run a study again, and the facts its numbers depend on."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from sculpt.config import Macs, Sparsity
from sculpt.record import Device, TrialRecord
from sculpt.results.records import Results
from sculpt.units import count, counted, duration, macs, share


@dataclass(frozen=True)
class Reproduction:
    """Commands, file and facts to run a study again."""

    file: str
    """Name of the study's file."""
    yaml: str
    """Text of the study's file."""
    commands: list[str]
    facts: list[tuple[str, str]]
    """Facts that the numbers depend on."""
    records: int
    """Number of records read."""


def reproduction(results: Results, records: list[TrialRecord], common: int | None) -> Reproduction:
    """Return commands, the study as a file, and the facts behind the numbers.

    Args:
        results: The study.
        records: Those that were read; devices and versions are theirs.
        common: The budget of all candidates, if they have one.
    """
    config = results.config
    # Paths of this machine are no part of the study.
    document = config.model_dump(
        mode="json",
        exclude={
            "storage": True,
            "artifacts": True,
            "data": {"root"},
            "pruning": {"data": {"root"}},
        },
    )
    file = f"{config.study}.yaml"
    root = " --set data.root=DIR" if "root" in config.data.options else ""
    budget = str(config.budget)
    if isinstance(config.budget, Sparsity):
        budget = f"sparsity {share(config.budget.sparsity)} of each network"
    elif isinstance(config.budget, Macs):
        most, parameters = config.budget.macs, config.budget.parameters
        budget = f"{'those of the base' if most == 'base' else macs(most)} in MACs"
        if parameters is not None:
            size = "those of the base" if parameters == "base" else count(parameters)
            budget += f", and at most {size} in parameters"
    elif "budget" in config.space.parameters:
        budget = "sampled with the space"
    elif budget == "base" and common:
        budget = f"base, {count(common)} parameters"
    seeds = dict.fromkeys(tuple(record.seeds) for record in records)
    rows = results.rows + results.opponent_rows + results.confirming
    seconds = sum(row.get("seconds") or 0.0 for row in rows)
    prints = _distinct(record.data_fingerprint for record in records)
    return Reproduction(
        file=file,
        yaml=yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100),
        commands=[f"sculpt run {file}{root}", f"sculpt rank {file}", f"sculpt report {file}"],
        facts=[
            ("data", f"{config.data.name}, fingerprint {prints}"),
            ("seeds", _distinct(", ".join(map(str, listed)) for listed in seeds)),
            ("counting rule", config.counting),
            ("budget", budget),
            ("epochs", str(config.training.epochs)),
            ("sampler", config.search.sampler),
            ("protocol", config.training.protocol),
            ("device", _distinct(_device(record.device) for record in records)),
            ("versions", _distinct(_versions(record.versions) for record in records)),
            ("all trials took", duration(seconds)),
        ],
        records=len(records),
    )


def _distinct(texts: Iterable[str]) -> str:
    """Return texts by how often they occur, the most frequent first, without empty ones."""
    found = Counter(text for text in texts if text)
    return "; ".join(text for text, _ in found.most_common()) or "unknown"


def _device(device: Device) -> str:
    return f"{device.type}, {device.name}, {counted(device.threads, 'thread')}"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
