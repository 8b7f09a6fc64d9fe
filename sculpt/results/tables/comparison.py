"""Networks of several studies side by side in tables; see `sculpt.results.comparison`."""

import json

from rich.console import Group

from sculpt import units
from sculpt.config import describe_parameters
from sculpt.documents import Document
from sculpt.results.comparison import ComparisonDocument
from sculpt.results.tables import HOW
from sculpt.table import Column, Table


def comparison_tables(document: ComparisonDocument) -> Group:
    """Show what networks reached, and below it the settings that they differ in."""
    tables = [_networks(document["networks"], units.Metric.of_document(document))]
    if document["settings"]:
        names = [f"{row['study']}:{row['trial']}" for row in document["networks"]]
        columns = [Column(name, place) for place, name in enumerate(["setting", *names])]
        rows = [[s["key"], *map(json.dumps, s["values"])] for s in document["settings"]]
        tables.append(Table("settings that differ", columns, rows))
    return Group(*tables)


def _networks(networks: list[Document], metric: units.Metric) -> Table:
    columns = [
        Column("study", "study"),
        Column("trial", "trial"),
        Column("parameters", lambda row: describe_parameters(row["params"]) or "the dense base"),
        Column(f"validation {metric.name}", "val_error", metric.spread),
        Column("kept", "kept_parameters", units.count),
        Column("sparsity", "sparsity", units.share),
        Column("kept MACs", "kept_macs", units.macs),
        Column("epochs", "epochs", units.count),
        Column("seconds", "seconds", units.seconds),
        Column(metric.title, "difference", metric.difference),
        Column("verdict", "verdict"),
    ]
    methods = {row["difference"]["method"] for row in networks if row["difference"]}
    how = "; ".join(HOW[method] for method in sorted(methods))
    note = f"difference of validation {metric.plural} with its own 95 % interval ({how}); verdict: "
    title = f"compared with {networks[0]['study']}:{networks[0]['trial']}"
    return Table(title, columns, networks, f"{note}Holm-corrected" if methods else "")
