"""Exported files, and what checking them found, in tables."""

from typing import Any

from rich.table import Table

from sculpt.results.tables import new_table


def export_table(document: dict[str, Any]) -> Table:
    """Show the files of an export; see `sculpt.export.directory.export_network`."""
    table = new_table("files", "file", "format", ">bytes", ">difference of logits")
    for file, found in document["files"].items():
        difference = found.get("difference")
        table.add_row(
            file,
            found.get("format") or "",
            f"{found['bytes']:,}",
            "" if difference is None else f"{difference:.2g}",
        )
    table.caption = "largest difference to the network's logits, as a share of the largest"
    return table


def verification_table(document: dict[str, Any]) -> Table:
    """Show what was checked; see `sculpt.export.verification.verify`."""
    verdict = "everything is as it was exported" if document["ok"] else "NOT as it was exported"
    table = new_table(f"{document['directory']}: {verdict}", "file", "check", "result", "detail")
    words = {True: "ok", False: "FAILED", None: "not checked"}
    for row in document["checks"]:
        style = "red" if row["ok"] is False else None
        table.add_row(row["file"], row["check"], words[row["ok"]], row["detail"], style=style)
    return table


def latency_table(document: dict[str, Any]) -> Table:
    """Show how long a network takes; see `sculpt.export.latency.time_side_by_side`."""
    columns = ("network", "runtime", ">images", ">threads", ">ms for one image", ">times as fast")
    table = new_table(f"{document['directory']}: latency on {document['cpu']}", *columns)
    for row in document["rows"]:
        low, middle, high = (1e3 * row["seconds"][key] for key in ("low", "median", "high"))
        table.add_row(
            row["network"],
            row["runtime"],
            str(row["batch"]),
            str(row["threads"]),
            f"{middle:.3f} ({low:.3f} to {high:.3f})",
            f"{row['ratio']:.2f}",
        )
    reference = document["reference"]
    lines = [
        "compact: without the channels that no path uses, and in C without the zeros; wide: every "
        "pruned weight a zero; base: the dense network it was ranked against",
        f"times as fast: as {reference['network']} in {reference['runtime']}; medians, and 10th to "
        "90th percentile",
        *(f"not timed: {missing['reason']}" for missing in document["missing"]),
    ]
    table.caption = "\n".join(lines)
    return table
