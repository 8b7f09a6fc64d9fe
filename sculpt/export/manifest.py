"""What an exported folder says of itself: its manifest, and the files that it tells of."""

import hashlib
import json
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from sculpt.config.search import Runtime
from sculpt.errors import InputError
from sculpt.export.loading import Architecture
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
    """What a model card says beside what the network's file says; a missing key is not known."""

    verdict: str
    """Of the ranking, against the dense base."""
    confirmed: str
    """The same, on fresh seeds."""
    base_model: Architecture


class Seconds(TypedDict):
    """For one image."""

    median: float
    low: float
    """10th percentile of the turns."""
    high: float
    """90th percentile."""


class Timed(TypedDict):
    """A network, and what ran it."""

    network: str
    """`compact`: without the channels that no path uses (C also leaves out the zeros); `wide`:
    with every pruned weight as a zero; `base`: the dense network that it was ranked against."""
    runtime: Runtime


class LatencyRow(Timed):
    """How long it takes."""

    batch: int
    """Images at a time."""
    threads: int
    seconds: Seconds
    ratio: float
    """How many times as fast as the reference at the same batch and threads: median of turns."""


class MissingRuntime(TypedDict):
    """What could not be timed on this machine."""

    runtime: Runtime
    reason: str


class Latency(TypedDict):
    """A network in every runtime of one machine, side by side."""

    cpu: str
    threads: int
    """All there are."""
    versions: dict[str, str]
    """Of `python`, `torch` and, if it is there, `onnxruntime`."""
    reference: Timed
    rows: list[LatencyRow]
    missing: list[MissingRuntime]


class Recorded(TypedDict):
    """The latency that counts for the network's trial."""

    latency: float
    """Seconds for one image, on one thread."""
    latency_by: str
    """What ran it, and on which CPU."""


class RecordedLatency(Latency, Recorded):
    """All of them, and the one."""


class Manifest(TypedDict):
    """The manifest of an exported folder."""

    format: str
    sculpt: str
    """Version that wrote it."""
    files: dict[str, ExportedFile]
    """By name; each lies in the folder itself."""
    facts: Facts
    latency: NotRequired[RecordedLatency]
    """Where `sculpt latency` has measured it."""


def describe_file(file: Path) -> ExportedFile:
    """Return the size of a file in bytes, and its SHA-256."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder, whole or not at all."""
    with replacing(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder; whoever has sent it, its files lie in it.

    Nothing else of it is checked.

    Raises:
        InputError: it is no exported folder.
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
