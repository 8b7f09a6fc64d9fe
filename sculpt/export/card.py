"""The model card: what a network is, how good it is, and how to use it without sculpt."""

from collections.abc import Mapping
from typing import Any

from sculpt.config import describe_parameters
from sculpt.export.formats import Network
from sculpt.export.loading import NetworkInput
from sculpt.export.manifest import Facts, Manifest, RecordedLatency
from sculpt.registry import FORMATS

COUNTING = {
    "paper": "paper: weights and biases of convolutions and linear layers, no batch norms",
    "total": "total: everything trainable",
}


def model_card(network: Network, manifest: Manifest) -> str:
    """Return the card of an exported network as Markdown."""
    found, facts = network.metadata, manifest["facts"]
    record = network.record
    blocks = [
        f"# A sparse network of the study `{found.get('study')}`, trial {found.get('trial')}",
        f"{describe_parameters(found.get('params') or {}) or 'the dense base'}; "
        f"seed {found.get('seed')} of {len(record.get('seeds') or [1])}.",
        _table(_rows(network, facts)),
        "## Files",
        _files(manifest),
        *_latency(manifest.get("latency")),
        "## Images",
        _images(found.get("input")),
        "## Using it without sculpt",
        *_examples(network, manifest),
        "## Using it with sculpt",
        "`sculpt verify .` checks every file here; `sculpt.load('.')` is the masked module, with "
        "its masks and its record.",
    ]
    return "\n\n".join(blocks) + "\n"


def _rows(network: Network, facts: Facts) -> list[list[str]]:
    found, record = network.metadata, network.record
    rows = [
        ["parameters kept", _count(found.get("kept_parameters"))],
        ["counting rule", COUNTING.get(str(found.get("counting")), "")],
        ["budget", _count(record.get("budget"))],
        ["sparsity", f"{record['sparsity']:.2%}" if "sparsity" in record else ""],
        [
            "multiply-accumulates per image",
            f"{record['kept_macs']:,.0f} of {record['dense_macs']:,} in the dense network"
            if "kept_macs" in record
            else "",
        ],
        ["validation error of this seed", _percent(found.get("val_error"))],
        ["validation error of its trial", _error(record.get("val_error"))],
        ["test error of this seed", _percent(found.get("test_error"))],
        ["against the dense base", str(facts.get("verdict") or "")],
        ["confirmed on fresh seeds", str(facts.get("confirmed") or "")],
        ["initialiser, criterion, repair", _recipe(record.get("config") or {})],
    ]
    return [row for row in rows if row[1]]


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _recipe(config: Mapping[str, Any]) -> str:
    pruning = config.get("pruning") or {}
    if not pruning:
        return ""
    return (
        f"{pruning['initializer']['name']}, {pruning['criterion']['name']}, {pruning['repair']}; "
        f"{config['training']['epochs']} epochs"
    )


def _percent(error: float | None) -> str:
    return "" if error is None else f"{100 * error:.2f} %"


def _error(error: Mapping[str, Any] | None) -> str:
    if not error:
        return ""
    spread = "" if error["std"] is None else f" ± {100 * error['std']:.2f}"
    return f"{100 * error['mean']:.2f}{spread} % (n {error['n']})"


def _files(manifest: Manifest) -> str:
    rows = []
    for file, found in manifest["files"].items():
        name = found.get("format")
        purpose = FORMATS.get(name).purpose if name else "images and logits to check the others by"
        rows.append([f"`{file}`", f"{found['bytes']:,} bytes", purpose])
    return _table(rows)


def _latency(timed: RecordedLatency | None) -> list[str]:
    if not timed:
        return []
    reference = timed["reference"]
    head = [
        "network",
        "runtime",
        "images at a time",
        "threads",
        "ms for one image",
        "times as fast",
    ]
    rows = [
        [
            row["network"],
            row["runtime"],
            str(row["batch"]),
            str(row["threads"]),
            f"{1e3 * row['seconds']['median']:.3f}",
            f"{row['ratio']:.2f}",
        ]
        for row in timed["rows"]
    ]
    return [
        "## Latency",
        f"On {timed['cpu']}, float32, medians of turns. `compact` is without the channels that no "
        "path uses (C also leaves out the zeros), `wide` has every pruned weight as a zero, `base` "
        "is the dense network that it was ranked against. Times as fast: as "
        f"`{reference['network']}` in {reference['runtime']}.",
        _table(rows, head),
    ]


def _images(described: NetworkInput | None) -> str:
    if not described:
        return ""
    names = described.get("class_names")
    text = (
        f"{described['channels']} × {described['height']} × {described['width']}, float32, "
        "(pixel / 255 − mean) / std of each channel, with mean "
        f"{_numbers(described['mean'])} and std {_numbers(described['std'])}; "
        f"{described['classes']} classes"
    )
    return f"{text}: {', '.join(map(str, names))}." if names else f"{text}."


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _examples(network: Network, manifest: Manifest) -> list[str]:
    shape = (1, *network.images.shape[1:])
    described = network.metadata.get("input")
    classes = described["classes"] if described else None
    blocks = []
    for file, found in manifest["files"].items():
        if "format" in found:
            example = FORMATS.get(found["format"]).example
            code = example.format(file=file, shape=shape, classes=classes)
            blocks += [f"`{file}`:", f"```python\n{code}```"]
    return blocks


def _table(rows: list[list[str]], head: list[str] | None = None) -> str:
    above = [head or [""] * len(rows[0]), ["---"] * len(rows[0])]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in above + rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
