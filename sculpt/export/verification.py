"""Checking an exported folder: every file's sum, and that every format computes the same."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sculpt.errors import ExportError, InputError
from sculpt.export.directory import (
    MANIFEST,
    MANIFEST_FORMAT,
    REFERENCE,
    TOLERANCE,
    compare,
    describe_file,
)
from sculpt.export.formats import Network
from sculpt.export.loading import load
from sculpt.pruning.masks import count_kept
from sculpt.registry import FORMATS


def verify(directory: str | Path) -> dict[str, Any]:
    """Check an exported folder, as a JSON document.

    Args:
        directory:
            As `export_network` left it, whoever has sent it: nothing in it is executed but by
            PyTorch's and ONNX Runtime's own readers. C code is compiled and run only if it is,
            letter by letter, what this version makes of the bundle beside it.

    Returns:
        `directory`, `ok` and `checks`: of each `file`, `check`, `ok` (None: it could not be
        checked here) and `detail`.

    Raises:
        InputError: it is no exported folder, or its network cannot be loaded.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    checks: list[dict[str, Any]] = []

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
        return _document(folder, checks)
    network = Network(loaded.model, loaded.masks, loaded.metadata, images)
    for file, found in manifest["files"].items():
        if found.get("format") is None or not (folder / file).is_file():
            continue
        try:
            kind = FORMATS.get(found["format"])
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
    return _document(folder, checks)


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


def _is_foreign_code(kind: Any, file: Path, network: Network) -> bool:
    """Return whether a file is a program by itself, and not the one that we would write."""
    text = getattr(kind, "text", None)
    return text is not None and file.read_bytes() != text(network).encode()


def _document(folder: Path, checks: list[dict[str, Any]]) -> dict[str, Any]:
    ok = all(check["ok"] is not False for check in checks)
    return {"directory": str(folder), "ok": ok, "checks": checks}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what an exported folder says of itself; whoever has sent it, its files lie in it.

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
    return manifest
