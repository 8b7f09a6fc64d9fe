"""The manifest of an exported folder: its files with checksums, facts, and latencies."""

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from sculpt.config.search import Runtime
from sculpt.errors import InputError
from sculpt.files import replacing

MANIFEST, REFERENCE, CARD = "manifest.json", "reference.safetensors", "README.md"
MANIFEST_FORMAT = "sculpt-export-1"


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


class Seconds(TypedDict):
    """Latency for one image."""

    median: float
    low: float
    """10th percentile of the turns."""
    high: float
    """90th percentile."""


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
    seconds: Seconds
    ratio: float
    """How many times as fast as the reference at the same batch and threads: median of turns."""


class MissingRuntime(TypedDict):
    """A runtime that could not be timed on this machine."""

    runtime: Runtime
    reason: str


class Latency(TypedDict):
    """A network in every runtime of one machine, side by side."""

    cpu: str
    threads: int
    """All there are."""
    versions: dict[str, str]
    """Versions of `python`, `torch` and, if installed, `onnxruntime`."""
    reference: Timed
    rows: list[LatencyRow]
    missing: list[MissingRuntime]


class RecordedLatency(Latency):
    """All latencies, and the one that goes into the record of the network's trial."""

    latency: float
    """Seconds for one image, on one thread."""
    latency_by: str
    """Its runtime and CPU."""


class Manifest(TypedDict):
    """The manifest of an exported folder."""

    format: str
    sculpt: str
    """Version that wrote it."""
    files: dict[str, ExportedFile]
    """By name; each lies in the folder itself."""
    facts: Facts
    latency: NotRequired[RecordedLatency]
    """Measured by `sculpt latency`."""


def describe_file(file: Path) -> ExportedFile:
    """Return the size of a file in bytes, and its SHA-256."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder atomically."""
    with replacing(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder, which may come from anybody; its files lie in the folder.

    Nothing else is checked.

    Raises:
        InputError: it is not an exported folder.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != MANIFEST_FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}")
        for file, found in manifest["files"].items():
            if Path(file).name != file or not isinstance(found, dict):
                raise ValueError(f"{file!r} is no file of it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{folder}: must be a folder that sculpt export wrote, but its {MANIFEST} is not read "
            f"({type(error).__name__}: {error!s:.200})"
        ) from error
    return cast(Manifest, manifest)
