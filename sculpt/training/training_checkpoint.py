"""Atomic checkpoints of a training run."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypedDict

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sculpt.errors import SculptWarning
from sculpt.files import replacing
from sculpt.training.trainer import State

FORMAT = "sculpt-checkpoint-2"
"""Version 2 stores only the kept values of pruned parameters."""


class Progress(TypedDict):
    """Progress of a run, beside its state."""

    epoch: int
    """The last finished one, counted from 1."""
    history: list[Mapping[str, Any]]
    """Fields of `sculpt.record.Epoch` of each evaluated epoch."""
    diverged: bool
    resumed_at: list[int]
    """Epochs after which the run resumed from an earlier checkpoint."""


@dataclass
class TrainingCheckpoint:
    """The file that a run is saved to, and how often."""

    path: Path
    every_seconds: float = 60.0
    on_written: Callable[[Path], None] = lambda path: None
    """Called with the file after each write."""
    _last: float = field(default_factory=monotonic)

    def due(self) -> bool:
        """Tell whether `every_seconds` have passed since the last write."""
        return monotonic() - self._last >= self.every_seconds

    def write(self, state: State, progress: Progress) -> None:
        """Replace the file atomically: killed at any moment, the old or the new one is whole."""
        header = {"format": FORMAT, "progress": json.dumps(progress)}
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        with replacing(self.path) as part:
            save_file(tensors, part, metadata=header)
        self.on_written(self.path)
        self._last = monotonic()

    def read(self) -> tuple[State, Progress] | None:
        """Read (state, progress); None without a readable file, with a warning if it is damaged."""
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ValueError(f"its format is {header.get('format')!r}, not {FORMAT!r}")
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return state, json.loads(header["progress"])
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            warnings.warn(
                f"{self.path}: a checkpoint must be readable to go on from it, but is not "
                f"({error}); the run starts from its beginning",
                SculptWarning,
                stacklevel=2,
            )
            return None


def epochs_written(path: Path) -> int:
    """Count the epochs in a checkpoint; 0 without a readable one."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(json.loads((file.metadata() or {})["progress"])["epoch"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return 0
