"""Words that sentences about rows of a ranking have in common."""

from typing import Any

from sculpt.config import describe_parameters

NAMED = 5
"""Candidates, or budgets, that have a sentence each; the tables have the rest."""


def configuration(params: dict[str, Any]) -> str:
    """Return a configuration as text, without the last digits of what was sampled."""
    values = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in params.items()}
    return describe_parameters(values) or "as the base"


def named(row: dict[str, Any]) -> str:
    """Return the configuration of a row as text."""
    return configuration(row["params"])


def with_verdict(rows: list[dict[str, Any]], *verdicts: str) -> list[dict[str, Any]]:
    """Return the rows that have one of these verdicts."""
    return [row for row in rows if row["verdict"] in verdicts]


def have(rows: list[Any]) -> str:
    """Return the verb that goes with as many."""
    return "has" if len(rows) == 1 else "have"


def counted(number: int, noun: str) -> str:
    """Return a number of things, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def uncorrected(row: dict[str, Any], family: int) -> str:
    """Say why a verdict differs from what its own interval shows."""
    difference = row["difference"]
    outside = difference["low"] > 0 or difference["high"] < 0
    if row["verdict"] != "not distinguishable" or not outside:
        return ""
    if difference["low"] == difference["high"]:
        return " (all seeds differ by the same, which so few seeds can do by chance)"
    return f" once corrected for {counted(family, 'comparison')}, though its own interval is not"
