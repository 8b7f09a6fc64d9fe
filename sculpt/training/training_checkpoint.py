"""Atomic checkpoints of a training run."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sculpt.errors import SculptWarning, StorageError
from sculpt.files import replacing
from sculpt.record import Epoch
from sculpt.training.trainer import State
from sculpt.typed_json import from_json, to_json

FORMAT = "sculpt-checkpoint-2"
"""Version 2 stores only the kept values of pruned parameters."""


@dataclass(frozen=True)
class Progress:
    """Progress of a run, beside its state."""

    epoch: int = 0
    """The last finished one, counted from 1."""
    history: list[Epoch] = field(default_factory=list)
    """Evaluated epochs."""
    diverged: bool = False
    """A loss was not finite, and training ended there."""
    resumed_at: list[int] = field(default_factory=list)
    """Epochs after which the run resumed from an earlier checkpoint."""
    engine: Mapping[str, object] | None = None
    """What computed the last epoch, and why; see `choose_engine`."""


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
        header = {"format": FORMAT, "progress": json.dumps(to_json(progress))}
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
                return state, from_json(Progress, header["progress"].encode(), "its progress")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, StorageError, ValueError, KeyError) as error:
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
