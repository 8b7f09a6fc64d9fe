"""A folder of one exported network: its files, what they are, and images to check them by."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sculpt.errors import ExportError, InputError
from sculpt.export.card import model_card
from sculpt.export.formats import Network
from sculpt.export.loading import Loaded
from sculpt.registry import FORMATS

MANIFEST, REFERENCE, CARD = "manifest.json", "reference.safetensors", "README.md"
MANIFEST_FORMAT = "sculpt-export-1"

REFERENCE_IMAGES = 8
TOLERANCE = 1e-5
"""Of logits in float32, as a share of the largest."""


def export_network(
    loaded: Loaded, directory: str | Path, formats: Sequence[str], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write a network into a new folder, in several formats, each checked before it is kept.

    Args:
        loaded:
            The network.
        directory:
            The folder; it must not exist, or be empty, or be an export, which is replaced.
        formats:
            Registered names; `bundle` is always among what is written.
        facts:
            What the model card says beside what the file says: its ranking against the base.

    Returns:
        The manifest (README, "JSON").

    Raises:
        UnknownNameError: there is no such format.
        InputError: the folder holds something else, or cannot be written.
        ExportError: the network cannot be written so, or does not compute the same afterwards.
    """
    names = ["bundle", *(name for name in dict.fromkeys(formats) if name != "bundle")]
    kinds = {name: FORMATS.get(name) for name in names}
    target = Path(directory)
    _refuse_other_folder(target)
    network = Network(loaded.model, loaded.masks, loaded.metadata, _reference_images(loaded))
    with torch.no_grad():
        logits = network.model(network.images)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
            folder = Path(made)
            reference = save({"images": network.images, "logits": logits})
            (folder / REFERENCE).write_bytes(reference)
            files = {}
            for name, kind in kinds.items():
                kind.write(network, folder / kind.file)
                difference = compare(kind, folder / kind.file, network, network.images, logits)
                if not difference < TOLERANCE:
                    raise ExportError(
                        f"the file of format {name} must compute what the network does, to "
                        f"{TOLERANCE:g} of its largest logit, but differs by {difference:.3g}; "
                        "please report this, with the network"
                    )
                files[kind.file] = describe_file(folder / kind.file) | {
                    "format": name,
                    "difference": difference,
                }
            files[REFERENCE] = describe_file(folder / REFERENCE)
            manifest = {
                "format": MANIFEST_FORMAT,
                "sculpt": version("sculpt"),
                "files": files,
                "facts": facts,
            }
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False))
            (folder / CARD).write_text(model_card(network, manifest), encoding="utf-8")
            _put(folder, target)
    except OSError as error:
        raise InputError(
            f"an export must go to a folder that can be written, but got {target} "
            f"({error.strerror or error}); give another with --output"
        ) from error
    return manifest


def compare(kind: Any, file: Path, network: Network, images: Tensor, logits: Tensor) -> float:
    """Return how far a file's logits are from others, as a share of the largest; at two batches.

    Raises:
        InputError: the file cannot be read, or what runs it is not installed.
    """
    run = kind.open(file, network)
    largest = logits.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    differences = [
        float((run(images[:count].contiguous()) - logits[:count]).abs().max() / largest)
        for count in (1, len(images))
    ]
    # A difference that is no number is larger than any.
    return max(d if d == d else float("inf") for d in differences)


def describe_file(file: Path) -> dict[str, Any]:
    """Return the size of a file in bytes, and its SHA-256."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _reference_images(loaded: Loaded) -> Tensor:
    """Return images like normalised ones: noise, because a data set may not be given away."""
    described = loaded.metadata.get("input") or {}
    shape = tuple(described[key] for key in ("channels", "height", "width"))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(REFERENCE_IMAGES, *shape, generator=generator)


def _refuse_other_folder(target: Path) -> None:
    if target.is_dir():
        known = (target / MANIFEST).exists()
        if any(target.iterdir()) and not known:
            raise InputError(
                f"an export must go to a new folder, or in the place of an older export, but "
                f"{target} holds other files; give another with --output"
            )
    elif target.exists():
        raise InputError(f"an export must go to a folder, but {target} is a file; give another")


def _put(folder: Path, target: Path) -> None:
    """Move a finished folder to its place; an older one stays until then."""
    folder.chmod(0o755)  # a temporary folder is open to its owner alone
    old = target.with_name(f".{target.name}-old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    shutil.copytree(folder, target)
    shutil.rmtree(old, ignore_errors=True)
