"""One network in tables: its layers, and how signals travel through it."""

from typing import Any

from rich.console import Group
from rich.table import Table

from sculpt.config import describe_parameters
from sculpt.results.tables import new_table


def trial_table(record: dict[str, Any]) -> Table:
    """Show the layers of a trial's record."""
    title = f"trial {record['trial']} ({record['role']}): {describe_parameters(record['params'])}"
    table = new_table(
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
    table = new_table(
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
    layers = new_table(
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
    signal = new_table(
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
