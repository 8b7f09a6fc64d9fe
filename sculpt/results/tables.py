"""JSON documents as tables for people: errors in percent, large numbers grouped."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from rich.console import Group
from rich.table import Table

from sculpt.config import describe_parameters


def check_table(document: dict[str, Any]) -> Table:
    """Show the sizes of a space's corners beside the base."""
    base = document["base"]
    shared = document["budget"]
    budget = "a share of each network" if shared is None else f"{shared:,} parameters"
    title = (
        f"{document['study']}: budget {budget} "
        f"(counting rule {document['counting']}), {document['trials']} trials"
    )
    table = _table(
        title, "parameters", ">dense size", ">sparsity", ">dense MACs", ">memory", "feasible"
    )
    table.add_row(
        f"base: {describe_parameters(base['params'])}",
        f"{base['dense_parameters']:,}",
        "dense",
        f"{base['macs'] / 1e6:,.2f} M",
        f"{base['memory_bytes'] / 2**20:,.0f} MiB",
        "",
    )
    for corner in document["corners"]:
        table.add_row(
            describe_parameters(corner["params"]),
            f"{corner['dense_parameters']:,}",
            f"{corner['sparsity']:.2%}",
            f"{corner['dense_macs'] / 1e6:,.2f} M",
            f"{corner['memory_bytes'] / 2**20:,.0f} MiB",
            "yes" if corner["feasible"] else "too small for the budget",
        )
    if predicted := document["predicted"]:
        table.caption = _prediction(predicted["seconds"], predicted["measured_on"])
    return table


def ranking_table(document: dict[str, Any]) -> Table:
    """Show a ranking; see `sculpt.results.ranking.rank`."""
    table = _table(
        f"{document['study']}: {describe_tally(document['trials'])}",
        ">rank",
        "trial",
        "parameters",
        ">val error",
        ">kept",
        ">sparsity",
        ">kept MACs",
        "against the base",
        ">seconds",
    )
    for row in document["ranking"]:
        error = row["val_error"]
        spread = "" if error["std"] is None else f" ± {100 * error['std']:.2f}"
        table.add_row(
            str(row["rank"]),
            str(row["trial"]),
            describe_parameters(row["params"]),
            f"{100 * error['mean']:.2f}{spread} % (n {error['n']})",
            f"{row['kept_parameters']:,}",
            f"{row['sparsity']:.2%}",
            f"{row['kept_macs'] / 1e6:,.2f} M",
            row["verdict"] + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
            f"{row['seconds']:.1f}",
            style="bold" if row["role"] == "base" else None,
        )
    return table


def pareto_table(document: dict[str, Any]) -> Table:
    """Show a front; see `sculpt.results.pareto.pareto`."""
    names = [f">{o['name']} ({o['unit']})" for o in document["objectives"]]
    table = _table(
        f"Pareto front, {document['dominated']} dominated", "trial", "parameters", *names
    )
    for row in document["front"]:
        values = [f"{value:,.6g}" for value in row["values"].values()]
        table.add_row(str(row["trial"]), describe_parameters(row["params"]), *values)
    return table


def trial_table(record: dict[str, Any]) -> Table:
    """Show the layers of a trial's record."""
    title = f"trial {record['trial']} ({record['role']}): {describe_parameters(record['params'])}"
    table = _table(
        title,
        "layer",
        "shape",
        ">kept",
        ">density",
        ">‖WWᵀ−I‖ pruned",
        ">repaired",
        ">bound",
    )
    for layer in record["layers"]:
        table.add_row(
            layer["name"],
            "×".join(map(str, layer["shape"])),
            f"{layer['kept']:,}",
            f"{layer['density']:.2%}",
            f"{layer['orthogonality_before']:.3f}",
            f"{layer['orthogonality_after']:.3f}",
            f"{layer['orthogonality_bound']:.3f}",
            # Nothing gets through a layer without weights, so it should not be overlooked.
            style=None if layer["kept"] else "red",
        )
    return table


def signal_table(record: dict[str, Any]) -> Table:
    """Show signal propagation at each step of a trial's record."""
    table = _table(
        "signal propagation",
        "step",
        ">orthogonality score",
        ">effective nodes",
        ">effective parameters",
        ">log10 paths",
    )
    for step, signal in record["signal"].items():
        paths = signal["log10_paths"]
        table.add_row(
            step,
            f"{signal['orthogonality_score']:.3f}",
            f"{signal['effective_nodes']:,}",
            f"{signal['effective_parameters']:,}",
            "none" if paths is None else f"{paths:.2f}",
        )
    return table


def diagnosis_tables(document: dict[str, Any]) -> Group:
    """Show one candidate, pruned and not trained: its layers, then its signal propagation."""
    layers = _table(
        f"{document['study']}: {describe_parameters(document['params']) or 'as it stands'}, "
        f"{document['kept_parameters']:,} parameters kept of a budget of {document['budget']:,} "
        f"(counting rule {document['counting']}), sparsity {document['sparsity']:.2%}",
        "layer",
        "shape",
        ">kept",
        ">density",
        ">kept MACs",
        ">‖WWᵀ−I‖ pruned",
        ">repaired",
        ">bound",
        ">repair steps",
    )
    repaired = document["orthogonality"]["repaired"] is not None
    for layer in document["layers"]:
        layers.add_row(
            layer["name"],
            "×".join(map(str, layer["shape"])),
            f"{layer['kept']:,}",
            f"{layer['density']:.2%}",
            f"{layer['kept_macs'] / 1e6:,.2f} M",
            f"{layer['orthogonality_before']:.3f}",
            f"{layer['orthogonality_after']:.3f}" if repaired else "",
            f"{layer['orthogonality_bound']:.3f}",
            f"{layer['repair_steps']:,}" if repaired else "",
            # Nothing gets through a layer without weights, so it should not be overlooked.
            style=None if layer["kept"] else "red",
        )
    signal = _table(
        "signal propagation",
        "step",
        ">orthogonality score",
        ">JSV mean",
        ">std",
        ">min",
        ">max",
        ">condition",
    )
    for step, jacobian in document["jsv"].items():
        if jacobian is None:
            continue
        numbers = [f"{jacobian[key]:.3g}" for key in ("mean", "std", "min", "max")]
        condition = jacobian["condition"]
        numbers.append("infinite" if condition is None else f"{condition:.3g}")
        signal.add_row(step, f"{document['orthogonality'][step]:.3f}", *numbers)
    effective = document["effective"]
    paths = effective["log10_paths"]
    signal.caption = (
        f"effective: {effective['nodes']:,} nodes, {effective['parameters']:,} weights, "
        + ("no path: disconnected" if paths is None else f"10^{paths:.2f} paths")
    )
    return Group(layers, signal)


def bench_table(document: dict[str, Any]) -> Table:
    """Show measured speeds; see `sculpt.benchmark.throughput.bench`."""
    table = _table(
        f"{document['study']}: speed", "network", "parameters", "phase", ">images/s", ">seconds"
    )
    compared = any("ratio" in row for row in document["rows"])
    if compared:
        table.add_column("sculpt / standard", justify="right")
    for row in document["rows"]:
        rate, ratio = row["images_per_second"], row.get("ratio")
        table.add_row(
            row["role"].replace("_", " "),
            describe_parameters(row["params"]),
            row["phase"],
            "" if rate is None else f"{rate:,.0f}",
            f"{row['seconds']:,.2f}",
            *([f"{ratio:.2f}" if ratio else ""] if compared else []),
        )
    table.caption = _prediction(document["predicted"]["seconds"], document["device"])
    return table


def _prediction(seconds: float, device: dict[str, Any]) -> str:
    machine = f"{device['name']}, {device['threads']} threads"
    return f"the whole study: about {timedelta(seconds=round(seconds))} h on {machine}"


def describe_tally(tally: dict[str, int]) -> str:
    """Return the counts of a study's trials as one line."""
    shown = [f"{tally['complete']} of {tally['total']} trials complete"]
    shown += [
        f"{count} {state}"
        for state, count in tally.items()
        if state not in ("total", "complete") and count
    ]
    return ", ".join(shown)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left")
    return table


def to_csv(rows: Iterable[dict[str, Any]]) -> str:
    """Return flat rows as CSV text, nested keys joined by dots."""
    import pandas as pd

    return pd.json_normalize(list(rows)).to_csv(index=False)
