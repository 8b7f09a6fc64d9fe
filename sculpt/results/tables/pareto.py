"""Pareto fronts in a table for people."""

from typing import Any

from rich.table import Table

from sculpt.config import describe_parameters
from sculpt.results.tables import new_table


def pareto_table(document: dict[str, Any]) -> Table:
    """Show fronts, and below each what it dominates if the document has that.

    Args:
        document:
            Of `sculpt.results.pareto.pareto_document`.
    """
    fronts = document["fronts"]
    title = f"Pareto front, {document['dominated']} dominated"
    if document["missing"]:
        title += f", {document['missing']} without a value"
    budgets, studies = len(fronts) > 1, len(document["studies"]) > 1
    knees = any(front["knee"] for front in fronts)
    table = new_table(
        title,
        *([">budget"] if budgets else []),
        *(["study"] if studies else []),
        "trial",
        "parameters",
        *[f">{objective['name']} ({objective['unit']})" for objective in document["objectives"]],
        *([""] if knees else []),
    )
    for front in fronts:
        for rows, style in ((front["front"], None), (front.get("dominated_rows", []), "dim")):
            for row in rows:
                table.add_row(
                    *([_budget(front)] if budgets else []),
                    *([row["study"]] if studies else []),
                    str(row["trial"]),
                    describe_parameters(row["params"]),
                    *[f"{value:,.6g}" for value in row["values"].values()],
                    *(["knee" if row["knee"] else ""] if knees else []),
                    style=style,
                )
            table.add_section()
    volumes = [_volume(front, budgets) for front in fronts if front["hypervolume"]]
    table.caption = "\n".join(volumes + document["notes"]) or None
    table.caption_justify = "left"
    return table


def _volume(front: dict[str, Any], several: bool) -> str:
    found = front["hypervolume"]
    if not found["volume"]:
        size = "0, as no trial beats it in every objective"
    elif found["share"] is None:
        size = f"{found['volume']:.4g}, in the product of the units"
    else:
        size = f"{found['share']:.2%} of the product of its values"
    where = f" at budget {_budget(front)}" if several else ""
    return f"hypervolume up to the dense base{where}: {size}"


def _budget(front: dict[str, Any]) -> str:
    return "a share" if front["budget"] is None else f"{front['budget']:,}"
