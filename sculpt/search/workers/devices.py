"""The devices of this machine, and the number of workers that train on them."""

from dataclasses import dataclass
from typing import Literal

import torch

from sculpt.errors import InputError
from sculpt.training.memory import keep_freed_memory

TrialsPerDevice = int | Literal["auto"]


@dataclass(frozen=True)
class WorkerCount:
    """The number of workers asked of a machine; InputError if it is none, or given twice."""

    workers: int | None = None
    """In all."""
    trials_per_device: TrialsPerDevice = 1
    """On each device; `auto` measures which number is the fastest."""
    apart: bool = False
    """Whether a single one, too, gets a process of its own."""

    def __post_init__(self) -> None:
        each = self.trials_per_device
        if each != "auto" and (type(each) is not int or each < 1):
            rule = "--trials-per-device must be a whole number of at least 1, or auto"
            raise InputError(f"{rule}, but got {each!r}")
        if self.workers is None:
            return
        if type(self.workers) is not int or self.workers < 1:
            rule = "--workers must be a whole number of at least 1"
            raise InputError(f"{rule}, but got {self.workers!r}")
        if each != 1:
            raise InputError(
                "the number of workers must be given once, but got both --workers "
                f"{self.workers} and --trials-per-device {each}; leave out one of them"
            )

    @property
    def several(self) -> bool:
        """Whether there may be more than one worker for each device that is named."""
        return self.trials_per_device != 1 or (self.workers or 1) > 1


def choose_device(name: str) -> torch.device:
    """Return the device to train on; `auto` is a GPU where there is one. InputError without it."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # With its number: a process cannot be made ready for a device without one.
        return torch.device("cuda", torch.cuda.current_device())
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device must be auto, cpu or a device of this machine, but got {name!r} ({reason})"
        ) from error


def choose_devices(names: str, *, several: bool) -> list[torch.device]:
    """Return the devices to train on: one, or several separated by commas (`cuda:0,cuda:1`).

    `auto` is a GPU where there is one, and for several workers all of them; see `choose_device`.
    """
    if names == "auto" and several and torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [choose_device(name.strip()) for name in names.split(",")]


def use_device(device: torch.device) -> None:
    """Make this process ready to train on a device, and on no other one."""
    if device.type == "cuda":
        # Streams and captured steps are made on the current device, whatever the tensors are on.
        torch.cuda.set_device(device)
    elif device.type == "cpu":
        keep_freed_memory()


def answers(device: torch.device) -> bool:
    """Tell whether a device still computes in this process: after some errors (an illegal access,
    a fault of the hardware) CUDA repeats them until the process ends."""
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            return False
    return True
