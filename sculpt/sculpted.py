"""A network that is ready to train, and the folder in which its training is written down."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sculpt.bundle import read_bundle, write_bundle
from sculpt.errors import InputError, SculptWarning
from sculpt.pruning.masks import Masks, Scores
from sculpt.training.checkpoint import Checkpoint, epochs_written

SCULPTED_FILE = "sculpted.safetensors"
TRAINING_FILE = "training.safetensors"


@dataclass(frozen=True)
class Sculpted:
    """A network ready to train: what was removed, and what that did to its signals."""

    model: nn.Module
    masks: Masks
    scores: Scores
    """Of a candidate, by parameter name; empty for the base, and where it was read from a file."""
    record: dict[str, Any]
    """Sizes, costs, signal propagation and layers."""


def write_sculpted(folder: Path, sculpted: Sculpted) -> Path:
    """Write a network down before it is trained, so that it is never scored twice.

    Returns:
        The file.
    """
    (folder / TRAINING_FILE).unlink(missing_ok=True)  # of another network
    write_bundle(folder / SCULPTED_FILE, sculpted.model, sculpted.masks, sculpted.record)
    return folder / SCULPTED_FILE


def read_sculpted(folder: Path, model: nn.Module, device: torch.device) -> Sculpted | None:
    """Read what `write_sculpted` wrote, bit for bit, into a newly built network.

    None if there is nothing; a file that cannot be read is nothing, with a warning.
    """
    if not (folder / SCULPTED_FILE).exists():
        return None
    try:
        bundle = read_bundle(folder / SCULPTED_FILE)
    except InputError as error:
        warnings.warn(f"{error}; the trial starts from its beginning", SculptWarning, stacklevel=2)
        return None
    model = model.to(device).to(memory_format=torch.channels_last)
    model.load_state_dict(bundle.state)
    masks = {name: mask.to(device) for name, mask in bundle.masks.items()}
    return Sculpted(model, masks, {}, bundle.metadata)


def progress_in(folder: Path) -> int:
    """Return how far a trial is, of whose seeds each has a folder in this one.

    Counted in epochs that are written down, and networks that are ready to train.
    """
    ready = list(folder.glob(f"*/{SCULPTED_FILE}"))
    return len(ready) + sum(epochs_written(path.with_name(TRAINING_FILE)) for path in ready)


def checkpoint_in(
    folder: Path | None, every_seconds: float, on_written: Callable[[Path], None]
) -> Checkpoint | None:
    """Return where the training in a folder is written down; None without a folder."""
    return Checkpoint(folder / TRAINING_FILE, every_seconds, on_written) if folder else None
