"""One network in tables: its layers, and how signals travel through it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from sculpt.config import describe_parameters
from sculpt.results.tables import new_table


def layers_table(title: str, layers: Sequence[Mapping[str, Any]], *, repaired: bool) -> Table:
    """Show what is left of each layer.

    Args:
        title:
            Of the table.
        layers:
            `layers` of a trial's record or of a diagnosis.
        repaired:
            Whether isometry was repaired after pruning.
    """
    table = new_table(
        title,
        "layer",
        "shape",
        ">kept",
        ">density",
        ">kept MACs",
        ">effective channels",
        ">‖WWᵀ−I‖ pruned",
        *([">repaired"] if repaired else []),
        ">bound",
        *([">repair steps"] if repaired else []),
    )
    for layer in layers:
        table.add_row(
            layer["name"],
            "×".join(map(str, layer["shape"])),
            f"{layer['kept']:,}",
            f"{layer['density']:.2%}",
            _macs(layer["kept_macs"]),
            f"{layer['effective_channels']:,} of {layer['shape'][0]:,}",
            f"{layer['orthogonality_before']:.3f}",
            *([f"{layer['orthogonality_after']:.3f}"] * repaired),
            f"{layer['orthogonality_bound']:.3f}",
            *([f"{layer['repair_steps']:,}"] * repaired),
            # Nothing gets through a layer without weights, so it should not be overlooked.
            style=None if layer["kept"] else "red",
        )
    return table


def diagnosis_tables(document: dict[str, Any]) -> Group:
    """Show one candidate, pruned and not trained: its layers, then its signal propagation."""
    title = (
        f"{document['study']}: {describe_parameters(document['params']) or 'as it stands'}, "
        f"{document['kept_parameters']:,} parameters kept of a budget of {document['budget']:,} "
        f"(counting rule {document['counting']}), sparsity {document['sparsity']:.2%}"
    )
    repaired = document["orthogonality_score"]["repaired"] is not None
    layers = layers_table(title, document["layers"], repaired=repaired)
    signal = new_table(
        "signal propagation",
        "step",
        ">orthogonality score",
        ">Jacobian mean",
        ">std",
        ">min",
        ">max",
        ">condition",
    )
    for step, jacobian in document["jacobian"].items():
        if jacobian is None:
            continue
        numbers = [f"{jacobian[key]:.3g}" for key in ("mean", "std", "min", "max")]
        condition = jacobian["condition"]
        numbers.append("infinite" if condition is None else f"{condition:.3g}")
        signal.add_row(step, f"{document['orthogonality_score'][step]:.3f}", *numbers)
    effective = document["effective"]
    paths = effective["log10_paths"]
    signal.caption = (
        f"effective: {effective['nodes']:,} nodes, {effective['parameters']:,} weights, "
        + ("no path: disconnected" if paths is None else f"10^{paths:.2f} paths")
    )
    return Group(layers, signal)


def _macs(count: float) -> str:
    return f"{count / 1e6:,.2f} M" if count >= 1e5 else f"{count:,.0f}"
