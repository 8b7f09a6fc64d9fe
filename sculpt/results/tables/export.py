"""Exported files, and what checking them found, in tables."""

from sculpt.export.card import latency_table as shared_table
from sculpt.export.folder import FolderLatency, Verification
from sculpt.export.manifest import Manifest
from sculpt.table import Column, Table
from sculpt.units import count

RESULTS = {True: "ok", False: "FAILED", None: "not checked"}


def export_table(document: Manifest) -> Table:
    """Return the files of an export; see `sculpt.export.folder.export_network`."""
    columns = [
        Column("file", 0),
        Column("format", lambda row: row[1].get("format")),
        Column("bytes", lambda row: row[1]["bytes"], count),
        Column("difference of logits", lambda row: row[1].get("difference"), "{:.2g}".format),
    ]
    note = "largest difference to the network's logits, as a share of the largest"
    return Table("files", columns, list(document["files"].items()), note)


def verification_table(document: Verification) -> Table:
    """Return the checks of an export; see `sculpt.exports.verify`."""
    verdict = "everything is as it was exported" if document["ok"] else "NOT as it was exported"
    columns = [
        Column("file", "file"),
        Column("check", "check"),
        Column("result", lambda row: RESULTS[row["ok"]]),
        Column("detail", "detail"),
    ]
    return Table(
        f"{document['directory']}: {verdict}",
        columns,
        document["checks"],
        look=lambda row: "bad" if row["ok"] is False else "",
    )


def latency_table(document: FolderLatency) -> Table:
    """Return how long a network takes; see `sculpt.export.latency.time_side_by_side`."""
    reference = document["reference"]
    lines = [
        "compact: without the channels that no path uses, and in C without the zeros; wide: every "
        "pruned weight a zero; base: the dense network it was ranked against",
        f"times as fast: as {reference['network']} in {reference['runtime']}; medians, and 10th to "
        "90th percentile",
        *(f"not timed: {missing['reason']}" for missing in document["missing"]),
    ]
    table = shared_table(document)
    title = f"{document['directory']}: latency on {document['cpu']}"
    return Table(title, table.columns, table.rows, "\n".join(lines))
