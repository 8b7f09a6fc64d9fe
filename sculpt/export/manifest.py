"""The manifest of an exported folder: its files with checksums, facts, and latencies."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # that of Python 3.11 cannot be checked

from sculpt.config.search import Runtime
from sculpt.errors import InputError
from sculpt.files import check_file, replacing
from sculpt.typed_json import from_json

MOST_BYTES = 2**24
"""Largest manifest."""

MANIFEST, REFERENCE, CARD = "manifest.json", "reference.safetensors", "README.md"


class ExportedFile(TypedDict):
    """A file of the folder."""

    bytes: int
    sha256: str
    format: NotRequired[str]
    """Registered name; the reference images have none."""
    difference: NotRequired[float]
    """Between its logits and the network's, in float32: a share of the largest."""


class Facts(TypedDict, total=False):
    """Facts on a model card that the network's own file lacks; missing if unknown."""

    verdict: str
    """Verdict of the ranking, against the dense base."""
    confirmed: str
    """The same, on fresh seeds."""
    base_model: dict[str, Any]
    """Registered `name` and `options` of the dense base."""


class Timed(TypedDict):
    """A network in a runtime."""

    network: str
    """`compact`: without the channels that no path uses (C also leaves out the zeros); `wide`:
    with every pruned weight as a zero; `base`: the dense network that it was ranked against."""
    runtime: Runtime


class LatencyRow(Timed):
    """Latency of a network in a runtime."""

    batch: int
    """Images at a time."""
    threads: int
    seconds: dict[str, float]
    """For one image: `median`, and `low` and `high`, the 10th and 90th percentile of the turns."""
    ratio: float
    """How many times as fast as the reference at the same batch and threads: median of turns."""


class Latency(TypedDict):
    """A network in every runtime of one machine, side by side."""

    cpu: str
    threads: int
    """All there are."""
    versions: dict[str, str]
    """Versions of `python`, `torch` and, if installed, `onnxruntime`."""
    reference: Timed
    rows: list[LatencyRow]
    missing: list[dict[str, str]]
    """The `runtime` of each that could not be timed on this machine, and the `reason`."""
    latency: NotRequired[float]
    """Seconds for one image, on one thread, as in the record of the network's trial."""
    latency_by: NotRequired[str]
    """Its runtime and CPU."""


class Manifest(TypedDict):
    """The manifest of an exported folder."""

    format: Literal["sculpt-export-1"]
    sculpt: str
    """Version that wrote it."""
    files: dict[str, ExportedFile]
    """By name; each lies in the folder itself."""
    facts: NotRequired[Facts]
    latency: NotRequired[Latency]
    """Measured by `sculpt latency`."""


def describe_file(file: Path) -> ExportedFile:
    """Return the size of a file in bytes, and its SHA-256."""
    check_file(file)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder atomically."""
    with replacing(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder, which may come from anybody; its files lie in the folder.

    Raises:
        InputError: it is not an exported folder.
    """
    try:
        check_file(folder / MANIFEST, MOST_BYTES)
        manifest = from_json(Manifest, (folder / MANIFEST).read_bytes(), "it")
        for name in manifest["files"]:
            if Path(name).name != name:
                raise InputError(f"{name!a:.80} is no file of it")
    except (OSError, InputError) as error:
        raise InputError(
            f"{folder}: must be a folder that sculpt export wrote, but its {MANIFEST} is not read "
            f"({error!s:.300})"
        ) from error
    return manifest
