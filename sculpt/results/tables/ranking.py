"""What a study has found in tables: the ranking, confirmation, published rows, and proxies."""

from collections import Counter
from typing import Any

from rich.console import Group
from rich.table import Table

from sculpt.config import describe_parameters
from sculpt.results.numbers import percent, points
from sculpt.results.tables import describe_tally, how_judged, new_table
from sculpt.results.tables.published import published_tables

SHOWN_PROXIES = 8
SHOWN_UNRANKED = 10


def ranking_tables(document: dict[str, Any]) -> Group:
    """Show all that `sculpt.results.ranking.rank` says."""
    tables = [ranking_table(document)]
    if document["unranked"]:
        tables.append(unranked_table(document))
    if document["confirmation"]:
        tables.append(confirmation_table(document))
    tables += published_tables(document["published"])
    if any(row["rho"] is not None for row in document["proxies"]):
        tables.append(proxies_table(document))
    return Group(*tables)


def ranking_table(document: dict[str, Any]) -> Table:
    """Show a ranking; see `sculpt.results.ranking.rank`."""
    rows = document["ranking"]
    several = len({row["budget"] for row in rows if row["role"] == "candidate"}) > 1
    compared = [row["difference"] for row in rows if row["difference"]]
    table = new_table(
        f"{document['study']}: {describe_tally(document['trials'])}",
        ">rank",
        "trial",
        "parameters",
        ">val error",
        *([">budget"] if several else []),
        ">kept",
        ">sparsity",
        ">kept MACs",
        *([">difference in points"] if compared else []),
        "against the base",
        ">seconds",
    )
    for row in rows:
        table.add_row(
            str(row["rank"]),
            str(row["trial"]),
            describe_parameters(row["params"]),
            percent(row["val_error"]),
            *([f"{row['budget']:,}"] if several else []),
            f"{row['kept_parameters']:,}",
            f"{row['sparsity']:.2%}",
            f"{row['kept_macs'] / 1e6:,.2f} M",
            *([points(row["difference"])] if compared else []),
            row["verdict"] + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
            f"{row['seconds']:.1f}",
            style="bold" if row["role"] == "base" else None,
        )
    if compared:
        table.caption = how_judged(compared, "validation errors", len(compared))
    return table


def unranked_table(document: dict[str, Any]) -> Table:
    """Show trials that ended without a result, and why."""
    rows = document["unranked"]
    counted = Counter(row["state"] for row in rows)
    title = ", ".join(f"{count} {state}" for state, count in counted.items())
    table = new_table(f"not ranked: {title}", "trial", "state", "parameters", ">seconds", "why")
    for row in rows[:SHOWN_UNRANKED]:
        seconds = row["seconds"]
        table.add_row(
            str(row["trial"]),
            row["state"],
            describe_parameters(row["params"]),
            "" if seconds is None else f"{seconds:.1f}",
            row["error"] or "interrupted too often",
        )
    if hidden := len(rows) - SHOWN_UNRANKED:
        table.caption = f"and {hidden} more: --json has all" if hidden > 0 else None
    return table


def confirmation_table(document: dict[str, Any]) -> Table:
    """Show the confirmation of a ranking; see `sculpt.results.confirmation.confirmation`."""
    found = document["confirmation"]
    title = f"confirmation on {found['seeds']} fresh seeds"
    table = new_table(
        title + ("" if found["complete"] else ", not complete yet"),
        "trial",
        "mask",
        "parameters",
        ">val error",
        ">test error",
        ">kept",
        ">kept MACs",
        ">difference in points",
        "against",
        "verdict",
    )
    base = {"trial": "base", "arm": "", "params": {}, "against": "", "verdict": "base"}
    base |= {"difference": None} | (found["base"] or {})
    for row in [base] * bool(found["base"]) + found["rows"]:
        table.add_row(
            str(row["trial"]),
            row["arm"],
            describe_parameters(row["params"]),
            percent(row["val_error"]),
            percent(row["test_error"]),
            f"{row['kept_parameters']:,}",
            f"{row['kept_macs'] / 1e6:,.2f} M",
            points(row["difference"]),
            str(row["against"]),
            row["verdict"] or "",
            style="bold" if row["trial"] == "base" else None,
        )
    if compared := [row["difference"] for row in found["rows"] if row["difference"]]:
        table.caption = how_judged(compared, "test errors", len(found["selected"]))
    return table


def proxies_table(document: dict[str, Any]) -> Table:
    """Show the strongest correlations of a ranking; see `sculpt.results.proxies.proxies`."""
    table = new_table("rank correlation with the error", "proxy", ">rho", ">p", ">n")
    known = [row for row in document["proxies"] if row["rho"] is not None]
    for row in known[:SHOWN_PROXIES]:
        table.add_row(row["proxy"], f"{row['rho']:+.2f}", f"{row['p']:.2g}", str(row["n"]))
    table.caption = f"Spearman; p of each alone, of {len(known)}"
    if len({row["budget"] for row in document["ranking"] if row["role"] == "candidate"}) > 1:
        table.caption += "; all budgets together"
    return table
