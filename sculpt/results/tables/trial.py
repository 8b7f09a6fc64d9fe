"""One trial in tables: what it found, its layers, its signals and its learning curves."""

from statistics import mean, stdev
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sculpt.config import describe_parameters
from sculpt.results.tables import new_table
from sculpt.results.tables.diagnosis import layers_table

SHOWN_EPOCHS = 12


def trial_tables(record: dict[str, Any]) -> Group:
    """Show all that people read of a trial; see `sculpt.results.records.Results.record`."""
    if record["state"] != "complete":
        return Group(Text(_unfinished(record)))
    repaired = any(layer["repair_steps"] for layer in record["layers"])
    title = f"layers (of the first seed, {record['seeds'][0]})"
    return Group(
        Text(_found(record)),
        *(Text(warning, style="bold red") for warning in warnings(record)),
        layers_table(title, record["layers"], repaired=repaired),
        signal_table(record),
        curves_table(record),
    )


def warnings(record: dict[str, Any]) -> list[str]:
    """Return what is wrong with the network of a record: collapse, and training that diverged."""
    found = []
    for run in record["runs"]:
        if names := run.get("collapsed_layers"):
            found.append(f"seed {run['seed']}: no weight is left in {', '.join(names)}")
        if list(run["signal"].values())[-1]["log10_paths"] is None:
            found.append(f"seed {run['seed']}: no path leads from the input to the output")
        if run.get("diverged"):
            found.append(f"seed {run['seed']}: the loss did not stay finite")
    return found


def signal_table(record: dict[str, Any]) -> Table:
    """Show signal propagation at each step of a trial's record."""
    table = new_table(
        "signal propagation",
        "step",
        ">orthogonality score",
        ">JSV mean",
        ">effective nodes",
        ">effective parameters",
        ">log10 paths",
    )
    for step, signal in record["signal"].items():
        paths, jacobian = signal["log10_paths"], signal.get("jacobian")
        table.add_row(
            step,
            f"{signal['orthogonality_score']:.3f}",
            f"{jacobian['mean']:.3g}" if jacobian else "",
            f"{signal['effective_nodes']:,}",
            f"{signal['effective_parameters']:,}",
            "none" if paths is None else f"{paths:.2f}",
        )
    return table


def curves_table(record: dict[str, Any]) -> Table:
    """Show how losses and errors went down, mean over the seeds, at up to 12 epochs."""
    by_epoch: dict[int, list[dict[str, Any]]] = {}
    for run in record["runs"]:
        for epoch in run["history"]:
            by_epoch.setdefault(epoch["epoch"], []).append(epoch)
    table = new_table(
        f"learning curves, mean of {len(record['runs'])} seed{'s' * (len(record['runs']) > 1)}",
        ">epoch",
        ">training loss",
        ">validation loss",
        ">validation error",
    )
    for epoch in spread(sorted(by_epoch), SHOWN_EPOCHS):
        rows = by_epoch[epoch]
        errors = [100 * row["val_error"] for row in rows]
        deviation = f" ± {stdev(errors):.2f}" if len(errors) > 1 else ""
        table.add_row(
            str(epoch),
            *(_mean_loss([row[loss] for row in rows]) for loss in ("train_loss", "val_loss")),
            f"{mean(errors):.2f}{deviation} %",
        )
    return table


def spread(items: list[int], most: int) -> list[int]:
    """Return at most so many items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _mean_loss(losses: list[float | None]) -> str:
    known = [loss for loss in losses if loss is not None]
    return f"{mean(known):.4f}" if len(known) == len(losses) else "not finite"


def _found(record: dict[str, Any]) -> str:
    error = record["val_error"]
    deviation = "" if error["std"] is None else f" ± {100 * error['std']:.2f}"
    lines = [
        f"trial {record['trial']} ({record['role']}) of {record['study']}: "
        f"{describe_parameters(record['params']) or 'the dense base'}",
        f"validation error {100 * error['mean']:.2f}{deviation} % "
        f"(n {error['n']}, seeds {', '.join(map(str, record['seeds']))})",
        f"{record['kept_parameters']:,} parameters kept of {record['dense_parameters']:,} "
        f"(counting rule {record['counting']}), sparsity {record['sparsity']:.2%}; "
        f"{record['kept_macs'] / 1e6:,.2f} M of {record['dense_macs'] / 1e6:,.2f} M MACs; "
        f"{record['seconds']:.1f} s on {record['device']['name']}",
    ]
    tested = [error for error in record.get("test_errors") or [] if error is not None]
    if tested:
        lines.append(f"test error {100 * mean(tested):.2f} % (n {len(tested)})")
    if (plan := record.get("compaction")) and plan["used"]:
        lines.append(f"compaction saved {plan['saving']:.0%} of the MACs of its training")
    return "\n".join(lines)


def _unfinished(record: dict[str, Any]) -> str:
    lines = [
        f"trial {record['trial']}: {record['state']}"
        + (f", {record['error']}" if record["error"] else ""),
        describe_parameters(record["params"]),
    ]
    if rungs := record.get("rungs"):
        seen = ", ".join(f"{100 * error:.2f} % after {epoch}" for epoch, error in rungs.items())
        lines.append(f"validation error of the first seed: {seen} epochs")
    return "\n".join(filter(None, lines))
