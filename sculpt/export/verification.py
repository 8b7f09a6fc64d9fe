"""Checking an exported folder: every file's sum, and that every format computes the same."""

from pathlib import Path
from typing import TypedDict

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sculpt.errors import ExportError, InputError
from sculpt.export.directory import TOLERANCE, compare
from sculpt.export.formats import Format, Network
from sculpt.export.loading import load
from sculpt.export.manifest import REFERENCE, describe_file, read_manifest
from sculpt.pruning.masks import count_kept
from sculpt.registry import FORMATS


class Check(TypedDict):
    """One thing that was checked of a folder."""

    file: str
    check: str
    """What was looked at, in words."""
    ok: bool | None
    """None: it could not be checked here."""
    detail: str
    """What was found; empty where there is nothing to say."""


class Verification(TypedDict):
    """Everything that was checked of a folder."""

    directory: str
    ok: bool
    """No check has failed."""
    checks: list[Check]


def verify(directory: str | Path) -> Verification:
    """Check an exported folder.

    Args:
        directory: As `export_network` left it, whoever has sent it: nothing in it is executed but
            by PyTorch's and ONNX Runtime's own readers. C code is compiled and run only if it is,
            letter by letter, what this version makes of the bundle beside it.

    Raises:
        InputError: it is no exported folder, or its network cannot be loaded.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    checks: list[Check] = []

    def check(file: str, what: str, ok: bool | None, detail: str = "") -> None:
        checks.append({"file": file, "check": what, "ok": ok, "detail": detail})

    for file, found in manifest["files"].items():
        if not (folder / file).is_file():
            check(file, "is there", False, "it is missing")
            continue
        same = describe_file(folder / file) == {key: found.get(key) for key in ("bytes", "sha256")}
        check(file, "checksum", same, "" if same else "it was changed after it was exported")
    loaded = load(folder)
    kept = loaded.metadata.get("kept_parameters")
    if isinstance(kept, int):
        counted = count_kept(loaded.model, loaded.masks, loaded.metadata.get("counting") or "paper")
        detail = f"{counted:,} of {kept:,} recorded"
        check("network.safetensors", "kept parameters", counted == kept, detail)
    try:
        images, logits = read_reference(folder)
    except InputError as error:
        check(REFERENCE, "can be read", False, str(error))
        return conclude(folder, checks)
    network = Network(loaded.model, loaded.masks, loaded.metadata, images)
    for file, found in manifest["files"].items():
        if found.get("format") is None or not (folder / file).is_file():
            continue
        try:
            kind: type[Format] = FORMATS.get(found["format"])
            if _is_foreign_code(kind, folder / file, network):
                reason = (
                    "it is not the code that this version makes of the bundle, so it is not run"
                )
                check(file, "logits", None, reason)
                continue
            difference = compare(kind, folder / file, network, images, logits)
        except (InputError, ExportError) as error:
            missing = "not installed" in str(error)
            check(file, "logits", None if missing else False, str(error))
            continue
        detail = f"{difference:.2g} of the largest logit, at batch 1 and {len(images)}"
        check(file, "logits", difference < TOLERANCE, detail)
    return conclude(folder, checks)


def read_reference(folder: Path) -> tuple[Tensor, Tensor]:
    """Read the images of an exported folder, and the logits that the network had for them.

    Raises:
        InputError: they cannot be read.
    """
    try:
        reference = load_file(folder / REFERENCE)
        return reference["images"], reference["logits"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{folder / REFERENCE}: must hold images and logits, but cannot be read ({error}); "
            "export the network anew"
        ) from error


def _is_foreign_code(kind: type[Format], file: Path, network: Network) -> bool:
    """Return whether a file is a program by itself, and not the one that we would write."""
    text = getattr(kind, "text", None)
    return text is not None and file.read_bytes() != text(network).encode()


def conclude(folder: Path, checks: list[Check]) -> Verification:
    """Return checks of a folder with what they come to."""
    ok = all(check["ok"] is not False for check in checks)
    return {"directory": str(folder), "ok": ok, "checks": checks}
