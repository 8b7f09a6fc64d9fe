"""The model card of a network: its facts, its files, and how to use them without sculpt."""

from collections.abc import Callable, Mapping
from typing import Any

from sculpt.config import describe_parameters
from sculpt.errors import InputError
from sculpt.export.formats import Network
from sculpt.export.loading import input_of
from sculpt.export.manifest import ExportedFile, Facts, Latency, Manifest
from sculpt.registry import FORMATS
from sculpt.table import Column, Table, facts_table, name, text
from sculpt.units import Metric, count, share

COUNTING = {
    "paper": "paper: weights and biases of convolutions and linear layers, no batch norms",
    "total": "total: everything trainable",
}


def model_card(network: Network, manifest: Manifest) -> str:
    """Return the card of an exported network as Markdown.

    Raises:
        InputError: the network's metadata, which anybody may have written, are not as sculpt does.
    """
    try:
        return _card(network, manifest)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            "the metadata of an exported network must be as sculpt wrote them, but no model card "
            f"can be made of these ({type(error).__name__}: {error!s:.200}); export it anew"
        ) from error


def _card(network: Network, manifest: Manifest) -> str:
    found, facts = network.metadata, manifest.get("facts", {})
    record = network.record
    blocks = [
        f"# A sparse network of the study `{found.get('study')}`, trial {found.get('trial')}",
        f"{describe_parameters(found.get('params') or {}) or 'the dense base'}; "
        f"seed {found.get('seed')} of {len(record.get('seeds') or [1])}.",
        _facts(network, facts).markdown(),
        "## Files",
        _files(manifest).markdown(),
        *_latency(manifest.get("latency")),
        "## Images",
        _images(found["input"]),
        "## Using it without sculpt",
        *_examples(network, manifest),
        "## Using it with sculpt",
        "`sculpt verify .` checks every file here; `sculpt.load('.')` is the masked module, with "
        "its masks and its record.",
    ]
    return "\n\n".join(blocks) + "\n"


def _facts(network: Network, facts: Facts) -> Table:
    found, record = network.metadata, network.record
    metric = Metric.of_settings(record.get("config"))
    of_seed = f"{metric.name} of this seed"
    budget = (record.get("config") or {}).get("budget")
    most = budget.get("macs") if isinstance(budget, dict) else None
    known: list[tuple[str, Any, Callable[[Any], str]]] = [
        ("parameters kept", found.get("kept_parameters"), count),
        ("counting rule", COUNTING.get(str(found.get("counting"))), text),
        ("budget", None if most else record.get("budget"), count),
        ("budget of multiply-accumulates", "the base's" if most == "base" else most, _count),
        ("sparsity", record.get("sparsity"), share),
        ("multiply-accumulates per image", record.get("kept_macs"), count),
        ("of the dense network", record.get("dense_macs"), count),
        (f"validation {of_seed}", found.get("val_error"), metric.value),
        (f"validation {metric.name} of its trial", record.get("val_error"), metric.spread),
        (f"test {of_seed}", found.get("test_error"), metric.value),
        ("against the dense base", facts.get("verdict"), text),
        ("confirmed on fresh seeds", facts.get("confirmed"), text),
        ("initialiser, criterion, repair", _recipe(record.get("config") or {}), text),
    ]
    return facts_table("", [(n, "" if v is None else unit(v)) for n, v, unit in known])


def _count(found: int | str) -> str:
    return found if isinstance(found, str) else count(found)


def _recipe(config: Mapping[str, Any]) -> str:
    pruning = config.get("pruning")
    if not pruning:
        return ""
    names = [pruning[part]["name"] for part in ("initializer", "criterion")]
    return f"{', '.join(names)}, {pruning['repair']}; {config['training']['epochs']} epochs"


def _files(manifest: Manifest) -> Table:
    def purpose(row: tuple[str, ExportedFile]) -> str:
        name = row[1].get("format")
        return FORMATS.get(name).purpose if name else "images and logits to check the others by"

    columns = [Column("file", 0, name), Column("bytes", lambda row: row[1]["bytes"], count)]
    return Table("", [*columns, Column("for", purpose)], list(manifest["files"].items()))


def _latency(timed: Latency | None) -> list[str]:
    if not timed:
        return []
    reference = timed["reference"]
    return [
        "## Latency",
        f"On {timed['cpu']}, float32, medians of turns. `compact` is without the channels that no "
        "path uses (C also leaves out the zeros), `wide` has every pruned weight as a zero, `base` "
        "is the dense network that it was ranked against. Times as fast: as "
        f"`{reference['network']}` in {reference['runtime']}.",
        latency_table(timed).markdown(),
    ]


def latency_table(timed: Latency) -> Table:
    """Return the latencies of a network in every runtime of one machine."""
    columns = [
        Column("network", "network"),
        Column("runtime", "runtime"),
        Column("images at a time", "batch", count),
        Column("threads", "threads", count),
        Column("ms for one image", "seconds", _milliseconds),
        Column("times as fast", "ratio", "{:.2f}".format),
    ]
    return Table("", columns, timed["rows"])


def _milliseconds(seconds: Mapping[str, float]) -> str:
    low, middle, high = (1e3 * seconds[key] for key in ("low", "median", "high"))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _images(described: dict[str, Any]) -> str:
    names = described.get("class_names")
    mean, std = (", ".join(f"{value:.6g}" for value in described[key]) for key in ("mean", "std"))
    shape, outputs = input_of(described)
    pixels = described.get("pixels", True)
    value = "pixel / 255" if pixels else "value"
    what = "classes" if described.get("targets", "classes") == "classes" else "outputs"
    text = (
        f"{' × '.join(map(str, shape))}, float32, "
        f"({value} − mean) / std of each channel, with mean {mean} and std {std}; "
        f"{outputs} {what}"
    )
    return f"{text}: {', '.join(map(str, names))}." if names else f"{text}."


def _examples(network: Network, manifest: Manifest) -> list[str]:
    shape, (_, classes) = (1, *network.images.shape[1:]), input_of(network.metadata["input"])
    blocks = []
    for file, found in manifest["files"].items():
        if "format" in found:
            example = FORMATS.get(found["format"]).example
            code = example.format(file=file, shape=shape, classes=classes)
            blocks += [f"`{file}`:", f"```python\n{code}```"]
    return blocks
