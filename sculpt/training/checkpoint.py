"""A run in the middle, as one file that is always whole."""

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
"""2: of pruned parameters the kept values alone."""


class Progress(TypedDict):
    """What a run has done, beside its state."""

    epoch: int
    """The last one that is done, counted from 1."""
    history: list[Mapping[str, Any]]
    """Of each evaluated epoch the fields of `sculpt.training.loop.Epoch`."""
    diverged: bool
    resumed_at: list[int]
    """Epochs after which it went on from a checkpoint before."""


@dataclass
class Checkpoint:
    """Where a run is written down, and how often."""

    path: Path
    every_seconds: float = 60.0
    on_written: Callable[[Path], None] = lambda path: None
    """Called with the file after it was written."""
    _last: float = field(default_factory=monotonic)

    def due(self) -> bool:
        """Return whether it is time to write."""
        return monotonic() - self._last >= self.every_seconds

    def write(self, state: State, progress: Progress) -> None:
        """Replace the file by this state, at once: killed at any moment, one of both is there."""
        header = {"format": FORMAT, "progress": json.dumps(progress)}
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        with replacing(self.path) as part:
            save_file(tensors, part, metadata=header)
        self.on_written(self.path)
        self._last = monotonic()

    def read(self) -> tuple[State, Progress] | None:
        """Return (state, progress) as they were written last; None if there is nothing.

        A file that cannot be read is nothing, with a warning: the run starts anew.
        """
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
    """Return after how many epochs a checkpoint was written; 0 without one that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(json.loads((file.metadata() or {})["progress"])["epoch"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return 0
