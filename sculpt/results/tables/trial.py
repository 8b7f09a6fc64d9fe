"""One network in tables: what it found, its layers, its signals and its learning curves."""

from collections.abc import Sequence
from statistics import mean

from rich.console import Group
from rich.text import Text

from sculpt import units
from sculpt.config import describe_parameters
from sculpt.documents import Document
from sculpt.record import Epoch, LayerRow, TrialRecord
from sculpt.results.rows import spread
from sculpt.table import Column, Table
from sculpt.typed_json import from_json, to_json

SHOWN_EPOCHS = 12


def trial_tables(document: Document) -> Group:
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
        layers_table(title, record.layers, repaired=repaired),
        signal_table(record),
        curves_table(record),
    )


def diagnosis_tables(document: Document) -> Group:
    """Show one candidate, pruned and not trained: its layers, then its signal propagation."""
    budget = f"of a budget of {units.count(document['budget'])}"
    if "macs" in document:
        spent, most = units.macs(document["kept_macs"]), units.macs(document["macs"])
        budget = f"with {spent} of at most {most} MACs"
    title = (
        f"{document['study']}: {describe_parameters(document['params']) or 'as it stands'}, "
        f"{units.count(document['kept_parameters'])} parameters kept {budget} "
        f"(counting rule {document['counting']}), sparsity {units.share(document['sparsity'])}"
    )
    scores = document["orthogonality_score"]
    layers = [from_json(LayerRow, layer, "a layer") for layer in document["layers"]]
    effective = document["effective"]
    paths = effective["log10_paths"]
    columns = [
        Column("step", 0),
        Column("orthogonality score", lambda row: scores[row[0]], _three_digits),
        Column("Jacobian mean", lambda row: row[1]["mean"], _short),
        Column("std", lambda row: row[1]["std"], _short),
        Column("min", lambda row: row[1]["min"], _short),
        Column("max", lambda row: row[1]["max"], _short),
        Column("condition", lambda row: row[1]["condition"] or float("inf"), _short),
    ]
    signal = Table(
        "signal propagation",
        columns,
        [step for step in document["jacobian"].items() if step[1]],
        f"effective: {units.count(effective['nodes'])} nodes, "
        f"{units.count(effective['parameters'])} weights, "
        + ("no path: disconnected" if paths is None else f"10^{paths:.2f} paths"),
    )
    return Group(layers_table(title, layers, repaired=scores["repaired"] is not None), signal)


def warnings(record: TrialRecord) -> list[str]:
    """Return warnings on a network: collapsed layers, no path, training that diverged."""
    found = []
    for run in record.runs:
        if names := run.collapsed_layers:
            found.append(f"seed {run.seed}: no weight is left in {', '.join(names)}")
        if run.final_signal.log10_paths is None:
            found.append(f"seed {run.seed}: no path leads from the input to the output")
        if run.diverged:
            found.append(f"seed {run.seed}: the loss did not stay finite")
    return found


def layers_table(title: str, layers: Sequence[LayerRow], *, repaired: bool) -> Table:
    """Return kept weights, costs and isometry of each layer.

    Args:
        title: Of the table.
        layers: Of a trial's record, or of a diagnosis.
        repaired: Whether isometry was repaired after pruning.
    """
    columns = [
        Column("layer", lambda layer: layer.name),
        Column("shape", lambda layer: "×".join(map(str, layer.shape))),
        Column("kept", lambda layer: layer.kept, units.count),
        Column("density", lambda layer: layer.density, units.share),
        Column("kept MACs", lambda layer: layer.kept_macs, units.macs),
        Column("effective channels", _channels, str),
        Column("‖WWᵀ−I‖ pruned", lambda layer: layer.orthogonality_before, _three_digits),
        Column("repaired", lambda layer: layer.orthogonality_after, _three_digits),
        Column("bound", lambda layer: layer.orthogonality_bound, _three_digits),
        Column("repair steps", lambda layer: layer.repair_steps, units.count),
    ]
    shown = [column for column in columns if repaired or "repair" not in column.header]
    # Nothing gets through a layer without weights, so it should not be overlooked.
    return Table(title, shown, layers, look=lambda layer: "" if layer.kept else "bad")


def signal_table(record: TrialRecord) -> Table:
    """Return signal propagation at each step of a trial's record."""
    columns = [
        Column("step", 0),
        Column("orthogonality score", lambda row: row[1].orthogonality_score, _three_digits),
        Column("Jacobian mean", lambda row: row[1].jacobian and row[1].jacobian.mean, _short),
        Column("effective nodes", lambda row: row[1].effective_nodes, units.count),
        Column("effective parameters", lambda row: row[1].effective_parameters, units.count),
        Column("log10 paths", lambda row: _paths(row[1].log10_paths), str),
    ]
    return Table("signal propagation", columns, list(record.signal.items()))


def curves_table(record: TrialRecord) -> Table:
    """Return how losses and errors went down, mean over the seeds, at up to 12 epochs."""
    metric = units.Metric.of_settings(record.config)
    title = f"validation {metric.name}"
    by_epoch: dict[int, list[Epoch]] = {}
    for run in record.runs:
        for epoch in run.history:
            by_epoch.setdefault(epoch.epoch, []).append(epoch)
    columns = [
        Column("epoch", 0, str),
        Column("training loss", lambda row: _mean_loss([e.train_loss for e in row[1]]), str),
        Column("validation loss", lambda row: _mean_loss([e.val_loss for e in row[1]]), str),
        Column(title, lambda row: spread([e.val_error for e in row[1]]), metric.spread),
    ]
    rows = [(number, by_epoch[number]) for number in evenly(sorted(by_epoch), SHOWN_EPOCHS)]
    return Table(
        f"learning curves, mean of {units.counted(len(record.runs), 'seed')}", columns, rows
    )


def evenly(items: list[int], most: int) -> list[int]:
    """Return at most so many items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _channels(layer: LayerRow) -> str:
    return f"{units.count(layer.effective_channels)} of {units.count(layer.shape[0])}"


def _mean_loss(losses: list[float | None]) -> str:
    known = [loss for loss in losses if loss is not None]
    return f"{mean(known):.4f}" if len(known) == len(losses) else "not finite"


def _paths(log10: float | None) -> str:
    return "none" if log10 is None else f"{log10:.2f}"


def _three_digits(value: float) -> str:
    return f"{value:.3f}"


def _short(value: float) -> str:
    return "infinite" if value == float("inf") else f"{value:.3g}"


def _found(record: TrialRecord) -> str:
    metric = units.Metric.of_settings(record.config)
    lines = [
        f"trial {record.trial} ({record.role}) of {record.study}: "
        f"{describe_parameters(record.params) or 'the dense base'}",
        f"validation {metric.name} {metric.spread(to_json(record.val_error))}, "
        f"seeds {', '.join(map(str, record.seeds))}",
        f"{units.count(record.kept_parameters)} parameters kept of "
        f"{units.count(record.dense_parameters)} "
        f"(counting rule {record.counting}), sparsity {units.share(record.sparsity)}; "
        f"{units.macs(record.kept_macs)} of {units.macs(record.dense_macs)} MACs; "
        f"{units.seconds(record.seconds)} s on {record.device.name}",
    ]
    if (left := record.runs[0].unspent_macs) is not None:
        lines.append(f"{units.count(left)} multiply-accumulates of the budget left")
    if tested := spread([error for error in record.test_errors if error is not None]):
        lines.append(f"test {metric.name} {metric.spread(tested)}")
    if (plan := record.compaction) and plan["used"]:
        lines.append(f"compaction saved {plan['saving']:.0%} of the MACs of its training")
    return "\n".join(lines)


def _unfinished(record: Document) -> str:
    lines = [
        f"trial {record['trial']}: {record['state']}"
        + (f", {record['error']}" if record["error"] else ""),
        describe_parameters(record["params"]),
    ]
    if rungs := record.get("rungs"):
        metric = units.Metric.of_document(record)
        seen = ", ".join(f"{metric.value(error)} after {epoch}" for epoch, error in rungs.items())
        lines.append(f"validation {metric.name} of the first seed: {seen} epochs")
    return "\n".join(filter(None, lines))
