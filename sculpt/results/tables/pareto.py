"""Pareto fronts in a table for people."""

from functools import partial

from sculpt.documents import Document
from sculpt.results.pareto.fronts import FrontDocument, FrontRow, Hypervolume, ParetoDocument
from sculpt.results.tables import PARAMETERS
from sculpt.table import Column, Table
from sculpt.units import count, share


def pareto_table(document: ParetoDocument) -> Table:
    """Return fronts, and below each what it dominates if the document has that."""
    fronts = document["fronts"]
    title = f"Pareto front, {document['dominated']} dominated"
    if document["missing"]:
        title += f", {document['missing']} without a value"
    several = len(fronts) > 1
    rows: list[Document] = []
    ends = set()
    for front in fronts:
        budget = _budget(front)
        rows += [{**row, "at": budget, "look": ""} for row in front["front"]]
        ends.add(len(rows))
        beside = front.get("dominated_rows", []) + front.get("opponents", [])
        rows += [{**row, "at": budget, "look": "dim"} for row in beside]
        ends.add(len(rows))
    columns = [Column("trial", "trial"), PARAMETERS]
    if len(document["studies"]) > 1:
        columns.insert(0, Column("study", "study"))
    if several:
        columns.insert(0, Column("budget", "at", str))
    for objective in document["objectives"]:
        name, unit = objective["name"], objective["unit"]
        columns.append(Column(f"{name} ({unit})", partial(_value, name), "{:,.6g}".format))
    if any(row["knee"] or row["look"] for row in rows):
        columns.append(Column("", _kind))
    where = [f" at budget {_budget(front)}" if several else "" for front in fronts]
    volumes = [_volume(f["hypervolume"], at) for f, at in zip(fronts, where, strict=True)]
    return Table(
        title,
        columns,
        rows,
        "\n".join(filter(None, volumes + document["notes"])),
        lambda row: row["look"],
        frozenset(ends),
    )


def _kind(row: Document) -> str:
    if row["role"] == "opponent":
        return "opponent"
    return "dominated" if row["look"] else "knee" if row["knee"] else ""


def _value(name: str, row: FrontRow) -> float:
    return row["values"][name]


def _volume(found: Hypervolume | None, where: str) -> str:
    if not found:
        return ""
    if not found["volume"]:
        size = "0, as no trial beats it in every objective"
    elif found["share"] is None:
        size = f"{found['volume']:.4g}, in the product of the units"
    else:
        size = f"{share(found['share'])} of the product of its values"
    return f"hypervolume up to the dense base{where}: {size}"


def _budget(front: FrontDocument) -> str:
    return "a share" if front["budget"] is None else count(front["budget"])
