"""Timing an exported folder's network, and writing down there what was measured."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from sculpt.bundle import write_bundle
from sculpt.config.search import Runtime
from sculpt.errors import InputError
from sculpt.export.card import model_card
from sculpt.export.formats import Network
from sculpt.export.latency import TURNS, describe_latency, time_side_by_side
from sculpt.export.loading import Loaded, Metadata, build_described, load
from sculpt.export.manifest import (
    CARD,
    MANIFEST,
    LatencyRow,
    Manifest,
    Recorded,
    RecordedLatency,
    describe_file,
    read_manifest,
    write_manifest,
)
from sculpt.export.runtimes import missing_runtime
from sculpt.export.verification import read_reference
from sculpt.files import replacing
from sculpt.pruning.trained import NETWORK_FILE


class FolderLatency(RecordedLatency):
    """What was measured of an exported folder."""

    directory: str


def measure_directory(
    directory: str | Path,
    runtime: Runtime = "torch",
    *,
    turns: int = TURNS,
    on_row: Callable[[LatencyRow], None] = lambda row: None,
) -> FolderLatency:
    """Time an exported network in every runtime, and write it into the folder.

    Its manifest and model card hold the whole table afterwards, the bundle's record the
    `latency` in one runtime: seconds for one image, on one thread. The runtimes are fed from the
    bundle; no other file of the folder is executed.

    Args:
        directory: As `export_network` left it.
        runtime: Whose time is the record's.
        turns, on_row: See `time_side_by_side`.

    Raises:
        InputError: it is no exported folder, its bundle is not the one that was exported, or the
            runtime is not there.
        ExportError: the network cannot be lowered.
        OSError: nothing can be written there.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    bundle = folder / NETWORK_FILE
    loaded = load(folder)
    exported = manifest["files"].get(NETWORK_FILE)
    if exported is None or describe_file(bundle)["sha256"] != exported.get("sha256"):
        raise InputError(
            f"{bundle}: must be the file that was exported, but was changed since; export it anew"
        )
    if reason := missing_runtime(runtime):
        raise InputError(f"the runtime must be one that is there: {reason}")
    images, _ = read_reference(folder)
    network = Network(loaded.model, loaded.masks, loaded.metadata, images)
    base = _base(folder, manifest, loaded)
    timed = time_side_by_side(network, base, turns=turns, on_row=on_row)
    (seconds,) = [
        row["seconds"]["median"]
        for row in timed["rows"]
        if (row["network"], row["runtime"]) == ("compact", runtime)
        and (row["batch"], row["threads"]) == (1, 1)
    ]
    recorded: Recorded = {"latency": seconds, "latency_by": describe_latency(runtime)}
    metadata: Metadata = {**loaded.metadata, "record": {**loaded.record, **recorded}}
    write_bundle(bundle, loaded.model, loaded.masks, metadata)
    exported.update(describe_file(bundle))
    manifest["latency"] = {**timed, **recorded}
    write_manifest(folder, manifest)
    with replacing(folder / CARD) as part:
        part.write_text(model_card(network, manifest), encoding="utf-8")
    return {"directory": str(folder), **timed, **recorded}


def _base(folder: Path, manifest: Manifest, loaded: Loaded) -> nn.Module | None:
    """Return the dense base, untrained; None where an earlier export does not say what it is."""
    facts = manifest.get("facts")
    model = facts.get("base_model") if isinstance(facts, dict) else None
    if model is None:
        return None
    described = {"model": model, "input": loaded.metadata.get("input")}
    return build_described(folder / MANIFEST, described, loaded.model.state_dict()).eval()
