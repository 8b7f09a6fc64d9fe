"""The folder that one network of a trial is saved to, and callbacks on its progress."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sculpt.bundle import read_bundle, write_bundle
from sculpt.errors import InputError, SculptWarning
from sculpt.record import Epoch, SculptedRecord
from sculpt.training.training_checkpoint import TrainingCheckpoint, epochs_written
from sculpt.trial_setup import Sculpted
from sculpt.typed_json import from_json, to_json

SCULPTED_FILE = "sculpted.safetensors"
TRAINING_FILE = "training.safetensors"
FIRST_FILE = "first-training.safetensors"

Hook = Any
"""An argument of `train` for its checkpoint or callback."""


@dataclass(frozen=True)
class RunFolder:
    """Saves a run, resumes it after an interruption, and reports its progress."""

    path: Path | None = None
    """None saves nothing."""
    every_seconds: float = 60.0
    """Least time between checkpoints of the training."""
    on_written: Callable[[Path], None] = lambda file: None
    """Called with each written file."""
    on_sculpted: Callable[[SculptedRecord], None] = lambda record: None
    """Called once before training, with the record so far."""
    on_epoch: Callable[[Epoch], None] = lambda epoch: None
    """Called after each evaluated epoch, those of an earlier, interrupted run included."""

    def sculpted(self, build: Callable[[], nn.Module], sculpt: Callable[[], Sculpted]) -> Sculpted:
        """Load the saved network, bit for bit; else make one and save it.

        An unreadable file is ignored with a warning. `build` builds the untrained network to load a
        file into; `sculpt` makes a new one, ready to train.
        """
        found = self._read(build)
        if not found:
            found = sculpt()
            self._write(found)
        self.on_sculpted(found.record)
        return found

    def hooks(self, name: str = TRAINING_FILE) -> dict[str, Hook]:
        """Return the arguments of `train` for a checkpoint of this name, and its callback."""
        file = self.path / name if self.path else None
        checkpoint = TrainingCheckpoint(file, self.every_seconds, self.on_written) if file else None
        return {"on_epoch": self.on_epoch, "checkpoint": checkpoint}

    def _read(self, build: Callable[[], nn.Module]) -> Sculpted | None:
        if self.path is None or not (file := self.path / SCULPTED_FILE).exists():
            return None
        try:
            bundle = read_bundle(file)
            record = from_json(SculptedRecord, bundle.metadata, f"the record in {file}")
        except InputError as error:
            text = f"{error}; the trial starts from its beginning"
            warnings.warn(text, SculptWarning, stacklevel=4)
            return None
        model = build()
        model.load_state_dict(bundle.state)
        named = dict(model.named_parameters())
        masks = {name: mask.to(named[name].device) for name, mask in bundle.masks.items()}
        return Sculpted(model, masks, {}, record)

    def _write(self, sculpted: Sculpted) -> None:
        if self.path is None:
            return
        (self.path / TRAINING_FILE).unlink(missing_ok=True)  # of another network
        file = self.path / SCULPTED_FILE
        write_bundle(file, sculpted.model, sculpted.masks, to_json(sculpted.record))
        self.on_written(file)


NOWHERE = RunFolder()


def progress_in(folder: Path) -> int:
    """Count the progress of a trial with a folder per seed in this one.

    In saved epochs, and networks that are ready to train.
    """
    ready = list(folder.glob(f"*/{SCULPTED_FILE}"))
    trained = [path.with_name(TRAINING_FILE) for path in ready]
    return len(ready) + sum(map(epochs_written, [*trained, *folder.glob(f"*/{FIRST_FILE}")]))
