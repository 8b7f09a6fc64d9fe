"""One trial in tables: what it found, its layers, its signals and its learning curves."""

from statistics import mean, stdev
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sculpt.config import describe_parameters
from sculpt.record import Epoch, TrialRecord
from sculpt.results.tables import new_table
from sculpt.results.tables.diagnosis import layers_table
from sculpt.typed_json import from_json

SHOWN_EPOCHS = 12


def trial_tables(document: dict[str, Any]) -> Group:
    """Show all that people read of a trial; see `sculpt.results.records.Results.record`."""
    if document["state"] != "complete":
        return Group(Text(_unfinished(document)))
    written = {key: value for key, value in document.items() if key != "state"}
    record = from_json(TrialRecord, written, "the trial's record")
    repaired = any(layer.repair_steps for layer in record.layers)
    title = f"layers (of the first seed, {record.seeds[0]})"
    return Group(
        Text(_found(record)),
        *(Text(warning, style="bold red") for warning in warnings(record)),
        layers_table(title, document["layers"], repaired=repaired),
        signal_table(record),
        curves_table(record),
    )


def warnings(record: TrialRecord) -> list[str]:
    """Return what is wrong with the network of a record: collapse, and training that diverged."""
    found = []
    for run in record.runs:
        if names := run.collapsed_layers:
            found.append(f"seed {run.seed}: no weight is left in {', '.join(names)}")
        if run.final_signal.log10_paths is None:
            found.append(f"seed {run.seed}: no path leads from the input to the output")
        if run.diverged:
            found.append(f"seed {run.seed}: the loss did not stay finite")
    return found


def signal_table(record: TrialRecord) -> Table:
    """Show signal propagation at each step of a trial's record."""
    table = new_table(
        "signal propagation",
        "step",
        ">orthogonality score",
        ">Jacobian mean",
        ">effective nodes",
        ">effective parameters",
        ">log10 paths",
    )
    for step, signal in record.signal.items():
        table.add_row(
            step,
            f"{signal.orthogonality_score:.3f}",
            f"{signal.jacobian.mean:.3g}" if signal.jacobian else "",
            f"{signal.effective_nodes:,}",
            f"{signal.effective_parameters:,}",
            "none" if signal.log10_paths is None else f"{signal.log10_paths:.2f}",
        )
    return table


def curves_table(record: TrialRecord) -> Table:
    """Show how losses and errors went down, mean over the seeds, at up to 12 epochs."""
    by_epoch: dict[int, list[Epoch]] = {}
    for run in record.runs:
        for epoch in run.history:
            by_epoch.setdefault(epoch.epoch, []).append(epoch)
    table = new_table(
        f"learning curves, mean of {len(record.runs)} seed{'s' * (len(record.runs) > 1)}",
        ">epoch",
        ">training loss",
        ">validation loss",
        ">validation error",
    )
    for number in spread(sorted(by_epoch), SHOWN_EPOCHS):
        rows = by_epoch[number]
        errors = [100 * row.val_error for row in rows]
        deviation = f" ± {stdev(errors):.2f}" if len(errors) > 1 else ""
        table.add_row(
            str(number),
            _mean_loss([row.train_loss for row in rows]),
            _mean_loss([row.val_loss for row in rows]),
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


def _found(record: TrialRecord) -> str:
    error = record.val_error
    deviation = "" if error.std is None else f" ± {100 * error.std:.2f}"
    lines = [
        f"trial {record.trial} ({record.role}) of {record.study}: "
        f"{describe_parameters(record.params) or 'the dense base'}",
        f"validation error {100 * error.mean:.2f}{deviation} % "
        f"(n {error.n}, seeds {', '.join(map(str, record.seeds))})",
        f"{record.kept_parameters:,} parameters kept of {record.dense_parameters:,} "
        f"(counting rule {record.counting}), sparsity {record.sparsity:.2%}; "
        f"{record.kept_macs / 1e6:,.2f} M of {record.dense_macs / 1e6:,.2f} M MACs; "
        f"{record.seconds:.1f} s on {record.device.name}",
    ]
    tested = [error for error in record.test_errors if error is not None]
    if tested:
        lines.append(f"test error {100 * mean(tested):.2f} % (n {len(tested)})")
    if (plan := record.compaction) and plan["used"]:
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
