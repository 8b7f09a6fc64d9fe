"""Networks of several studies side by side in tables; see `sculpt.results.comparison`."""

import json
from typing import Any

from rich.console import Group
from rich.table import Table

from sculpt.config import describe_parameters
from sculpt.results.numbers import percent, points
from sculpt.results.tables import new_table


def comparison_tables(document: dict[str, Any]) -> Group:
    """Show what networks reached, and below it the settings that they differ in."""
    tables = [_networks(document["networks"])]
    if document["settings"]:
        tables.append(_settings(document))
    return Group(*tables)


def _networks(networks: list[dict[str, Any]]) -> Table:
    table = new_table(
        f"compared with {networks[0]['study']}:{networks[0]['trial']}",
        "study",
        "trial",
        "parameters",
        ">val error",
        ">kept",
        ">sparsity",
        ">kept MACs",
        ">epochs",
        ">seconds",
        ">difference in points",
        "verdict",
    )
    for row in networks:
        table.add_row(
            row["study"],
            str(row["trial"]),
            describe_parameters(row["params"]) or "the dense base",
            percent(row["val_error"]),
            f"{row['kept_parameters']:,}",
            f"{row['sparsity']:.2%}",
            f"{row['kept_macs'] / 1e6:,.2f} M",
            f"{row['epochs']:,}",
            f"{row['seconds']:.1f}",
            points(row["difference"]),
            row["verdict"],
        )
    methods = {row["difference"]["method"] for row in networks if row["difference"]}
    if methods:
        how = {
            "bootstrap": "paired by seed, bootstrap-t",
            "student": "paired by seed, Student's t",
            "welch": "seeds differ, Welch's t",
        }
        table.caption = (
            "difference of validation errors with its own 95 % interval "
            f"({'; '.join(how[method] for method in sorted(methods))}); verdict: Holm-corrected"
        )
    return table


def _settings(document: dict[str, Any]) -> Table:
    names = [f"{row['study']}:{row['trial']}" for row in document["networks"]]
    table = new_table("settings that differ", "setting", *names)
    for row in document["settings"]:
        table.add_row(row["key"], *(json.dumps(value) for value in row["values"]))
    return table
