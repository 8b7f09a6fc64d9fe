"""A folder of one exported network: writing it, checking it, and timing the network in it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn
from typing_extensions import TypedDict

from sculpt.arithmetic import relative_difference
from sculpt.bundle import NETWORK_FILE, write_bundle
from sculpt.config.search import Runtime
from sculpt.errors import ExportError, InputError
from sculpt.export.card import model_card
from sculpt.export.formats import Format, Network
from sculpt.export.latency import TURNS, describe_latency, time_side_by_side
from sculpt.export.loading import Loaded, build_described, input_of, load
from sculpt.export.manifest import (
    CARD,
    MANIFEST,
    REFERENCE,
    ExportedFile,
    Facts,
    Latency,
    LatencyRow,
    Manifest,
    describe_file,
    read_manifest,
    write_manifest,
)
from sculpt.export.runtimes import missing_runtime
from sculpt.files import check_file, replacing, replacing_folder
from sculpt.pruning.masks import count_kept
from sculpt.registry import FORMATS
from sculpt.version import VERSION

REFERENCE_IMAGES = 8
MOST_BYTES = 2**30
"""Largest file of reference images: what a stranger's folder can make its reader allocate."""
TOLERANCE = 1e-5
"""Allowed difference of logits in float32, as a share of the largest."""


class Check(TypedDict):
    """One check of a folder."""

    file: str
    check: str
    """In words."""
    ok: bool | None
    """None if it could not be checked here."""
    detail: str
    """Empty if there is nothing to say."""


class Verification(TypedDict):
    """All checks of a folder."""

    directory: str
    ok: bool
    """Whether no check has failed."""
    checks: list[Check]


class FolderLatency(Latency):
    """Latencies measured of an exported folder."""

    directory: str


def export_network(
    loaded: Loaded, directory: str | Path, formats: Sequence[str], facts: Facts
) -> Manifest:
    """Write a network into a new folder, in several formats, each checked before it is kept.

    Args:
        loaded: The network.
        directory: The folder; it must not exist, or be empty, or be an export, which is replaced.
        formats: Registered names; the bundle is always written.
        facts: For the model card.

    Raises:
        UnknownNameError: there is no such format.
        InputError: the folder holds something else, or cannot be written.
        ExportError: a format cannot hold the network, or computes something else.
    """
    kinds: dict[str, type[Format]] = {name: FORMATS.get(name) for name in ("bundle", *formats)}
    target = Path(directory)
    _check_target(target)
    # Noise like normalised images, because a data set may not be given away.
    shape, _ = input_of(loaded.metadata["input"])
    images = torch.randn(REFERENCE_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    network = Network(loaded.model, loaded.masks, loaded.metadata, images)
    with torch.no_grad():
        logits = network.model(images)
    try:
        with replacing_folder(target) as folder:
            (folder / REFERENCE).write_bytes(save({"images": images, "logits": logits}))
            files: dict[str, ExportedFile] = {}
            for name, kind in kinds.items():
                (folder / kind.file).write_bytes(kind.content(network))
                difference = compare(kind, folder / kind.file, network, images, logits)
                if not difference < TOLERANCE:
                    raise ExportError(
                        f"the file of format {name} must compute what the network does, to "
                        f"{TOLERANCE:g} of its largest logit, but differs by {difference:.3g}; "
                        "please report this, with the network"
                    )
                files[kind.file] = {
                    **describe_file(folder / kind.file),
                    "format": name,
                    "difference": difference,
                }
            files[REFERENCE] = describe_file(folder / REFERENCE)
            manifest: Manifest = {
                "format": "sculpt-export-1",
                "sculpt": VERSION,
                "files": files,
                "facts": facts,
            }
            write_manifest(folder, manifest)
            (folder / CARD).write_text(model_card(network, manifest), encoding="utf-8")
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        raise InputError(
            f"an export must go to a folder that can be written, but got {target} ({error}); give "
            "another with --output"
        ) from error
    return manifest


def check_folder(directory: str | Path) -> tuple[Loaded, list[Check]]:
    """Check every file of an exported folder, and load its network.

    Args:
        directory: Written by `export_network`; it may come from anybody: nothing in it is executed
            but by PyTorch's and ONNX Runtime's own readers. C code is compiled and run only if it
            is, letter by letter, what this version generates from the bundle beside it.

    Raises:
        InputError: it is not an exported folder, or its network cannot be loaded.
    """
    folder = Path(directory)
    files = read_manifest(folder)["files"]
    checks: list[Check] = []

    def check(file: str, what: str, ok: bool | None, detail: str = "") -> None:
        checks.append({"file": file, "check": what, "ok": ok, "detail": detail})

    present = {file: found for file, found in files.items() if (folder / file).is_file()}
    for file, found in files.items():
        if file not in present:
            check(file, "is there", False, "it is missing")
            continue
        same = {**found, **describe_file(folder / file)} == found
        check(file, "checksum", same, "" if same else "it was changed after it was exported")
    loaded = load(folder)
    kept = loaded.metadata.get("kept_parameters")
    if isinstance(kept, int):
        counted = count_kept(loaded.model, loaded.masks, loaded.metadata.get("counting") or "paper")
        detail = f"{counted:,} of {kept:,} recorded"
        check(NETWORK_FILE, "kept parameters", counted == kept, detail)
    try:
        images, logits = _read_reference(folder, loaded)
    except InputError as error:
        check(REFERENCE, "can be read", False, str(error))
        return loaded, checks
    network = Network(loaded.model, loaded.masks, loaded.metadata, images)
    for file, name in ((file, found.get("format")) for file, found in present.items()):
        if name is None:
            continue
        try:
            kind: type[Format] = FORMATS.get(name)
            if kind.is_code and (folder / file).read_bytes() != kind.content(network):
                reason = "it is not the code that this version generates from the bundle"
                check(file, "logits", None, f"{reason}, so it is not run")
                continue
            difference = compare(kind, folder / file, network, images, logits)
        except (InputError, ExportError) as error:
            missing = "not installed" in str(error)
            check(file, "logits", None if missing else False, str(error))
            continue
        detail = f"{difference:.2g} of the largest logit, at batch 1 and {len(images)}"
        check(file, "logits", difference < TOLERANCE, detail)
    return loaded, checks


def measure_folder(
    directory: str | Path,
    runtime: Runtime = "torch",
    *,
    turns: int = TURNS,
    on_row: Callable[[LatencyRow], None] = lambda row: None,
) -> FolderLatency:
    """Time an exported network in every runtime, and write it into the folder.

    Its manifest and model card hold the whole table afterwards, the bundle's record the time in one
    runtime: seconds for one image, on one thread. The runtimes are fed from the bundle; no other
    file of the folder is executed. `turns` and `on_row`: see `time_side_by_side`.

    Raises:
        InputError: it is not an exported folder, or cannot be written, its bundle is not the one
            that was exported, or the runtime is missing.
        ExportError: the network cannot be lowered.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    bundle = folder / NETWORK_FILE
    loaded = load(folder)
    exported = manifest["files"].get(NETWORK_FILE)
    if exported is None or describe_file(bundle)["sha256"] != exported["sha256"]:
        raise InputError(
            f"{bundle}: must be the file that was exported, but was changed since; export it anew"
        )
    if reason := missing_runtime(runtime):
        raise InputError(f"the runtime must be one that is there: {reason}")
    images, _ = _read_reference(folder, loaded)
    network = Network(loaded.model, loaded.masks, loaded.metadata, images)
    base = _dense_base(folder, manifest, loaded)
    timed = time_side_by_side(network, base, turns=turns, on_row=on_row)
    wanted = {"network": "compact", "runtime": runtime, "batch": 1, "threads": 1}
    (seconds,) = [
        row["seconds"]["median"] for row in timed["rows"] if row.items() >= wanted.items()
    ]
    by = describe_latency(runtime)
    record = {**loaded.record, "latency": seconds, "latency_by": by}
    manifest["latency"] = latency = timed | {"latency": seconds, "latency_by": by}
    card = model_card(network, manifest)
    try:
        write_bundle(bundle, loaded.model, loaded.masks, loaded.metadata | {"record": record})
        exported.update(describe_file(bundle))
        write_manifest(folder, manifest)
        with replacing(folder / CARD) as part:
            part.write_text(card, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{folder}: must be a folder that can be written, but is not ({error}); copy it first"
        ) from error
    return {"directory": str(folder), **latency}


def compare(
    kind: type[Format], file: Path, network: Network, images: Tensor, logits: Tensor
) -> float:
    """Return how far a file's logits are from `logits` at two batches; see `relative_difference`.

    Raises:
        InputError: the file cannot be read or run, or its runtime is not installed.
    """
    try:
        run = kind.open(file, network)
        return max(
            relative_difference(logits[:count], run(images[:count].contiguous()), like=logits)
            for count in (1, len(images))
        )
    except InputError:
        raise
    except Exception as error:  # readers and runtimes raise anything for a foreign file
        raise InputError(
            f"{file}: must be {kind.kind}, but is not read ({error!s:.300}); export it anew"
        ) from error


def _check_target(target: Path) -> None:
    """Refuse to replace a folder that is not an export, or holds files of somebody's beside it."""
    if target.is_dir():
        try:
            if held := {entry.name for entry in target.iterdir()}:
                own = {MANIFEST, CARD, *read_manifest(target)["files"]}
                stems = {Path(name).stem for name in own}  # C code may have been compiled there
                if others := [name for name in held - own if Path(name).stem not in stems]:
                    raise InputError(f"{others[0]!a} is none of its files")
        except (OSError, InputError) as error:
            raise InputError(
                f"an export must go to a new folder, or in the place of an older export, but "
                f"{target} holds other files; give another with --output"
            ) from error
    elif target.exists():
        raise InputError(f"an export must go to a folder, but {target} is a file; give another")


@torch.no_grad()
def _read_reference(folder: Path, loaded: Loaded) -> tuple[Tensor, Tensor]:
    """Read the reference images of a folder, and the network's logits for them."""
    try:
        check_file(folder / REFERENCE, MOST_BYTES)
        reference = load_tensors((folder / REFERENCE).read_bytes())
        images, logits = reference["images"], reference["logits"]
        expected = loaded.model(images[:1])
        if not len(images):
            raise ValueError("there is no image")
        if logits.shape != (len(images), *expected.shape[1:]) or logits.dtype != expected.dtype:
            raise ValueError(f"the logits are {logits.dtype} of shape {tuple(logits.shape)}")
        return images, logits
    except (OSError, SafetensorError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{folder / REFERENCE}: must hold images and logits, but cannot be read ({error}); "
            "export the network anew"
        ) from error


def _dense_base(folder: Path, manifest: Manifest, loaded: Loaded) -> nn.Module | None:
    """Build the dense base, untrained; None if an earlier export does not describe it."""
    model = manifest.get("facts", {}).get("base_model")
    if model is None:
        return None
    described = {"model": model, "input": loaded.metadata.get("input")}
    return build_described(folder / MANIFEST, described, loaded.model.state_dict()).eval()
