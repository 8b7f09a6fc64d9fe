"""A folder of one exported network: its files, what they are, and images to check them by."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sculpt.errors import ExportError, InputError
from sculpt.export.card import model_card
from sculpt.export.formats import Format, Network
from sculpt.export.loading import Loaded
from sculpt.export.manifest import (
    CARD,
    MANIFEST,
    MANIFEST_FORMAT,
    REFERENCE,
    ExportedFile,
    Facts,
    Manifest,
    describe_file,
    write_manifest,
)
from sculpt.files import replacing_folder
from sculpt.registry import FORMATS

REFERENCE_IMAGES = 8
TOLERANCE = 1e-5
"""Of logits in float32, as a share of the largest."""


def export_network(
    loaded: Loaded, directory: str | Path, formats: Sequence[str], facts: Facts
) -> Manifest:
    """Write a network into a new folder, in several formats, each checked before it is kept.

    Args:
        loaded: The network.
        directory: The folder; it must not exist, or be empty, or be an export, which is replaced.
        formats: Registered names; `bundle` is always among what is written.
        facts: For the model card.

    Returns:
        The manifest (README, "JSON").

    Raises:
        UnknownNameError: there is no such format.
        InputError: the folder holds something else, or cannot be written.
        ExportError: the network cannot be written so, or does not compute the same afterwards.
    """
    names = ["bundle", *(name for name in dict.fromkeys(formats) if name != "bundle")]
    kinds: dict[str, type[Format]] = {name: FORMATS.get(name) for name in names}
    target = Path(directory)
    _refuse_other_folder(target)
    network = Network(loaded.model, loaded.masks, loaded.metadata, _reference_images(loaded))
    with torch.no_grad():
        logits = network.model(network.images)
    try:
        with replacing_folder(target) as folder:
            reference = save({"images": network.images, "logits": logits})
            (folder / REFERENCE).write_bytes(reference)
            files: dict[str, ExportedFile] = {}
            for name, kind in kinds.items():
                kind.write(network, folder / kind.file)
                difference = compare(kind, folder / kind.file, network, network.images, logits)
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
                "format": MANIFEST_FORMAT,
                "sculpt": version("sculpt"),
                "files": files,
                "facts": facts,
            }
            write_manifest(folder, manifest)
            (folder / CARD).write_text(model_card(network, manifest), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"an export must go to a folder that can be written, but got {target} "
            f"({error.strerror or error}); give another with --output"
        ) from error
    return manifest


def compare(
    kind: type[Format], file: Path, network: Network, images: Tensor, logits: Tensor
) -> float:
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


def _reference_images(loaded: Loaded) -> Tensor:
    """Return images like normalised ones: noise, because a data set may not be given away."""
    described = loaded.metadata["input"]
    shape = described["channels"], described["height"], described["width"]
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
