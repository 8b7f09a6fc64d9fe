"""The devices of this machine, and how several workers are dealt out to them."""

import torch

from sculpt.search.preparation import choose_device
from sculpt.training.memory import keep_freed_memory


def choose_devices(names: str, *, several: bool) -> list[torch.device]:
    """Return the devices to train on.

    Args:
        names:
            One device, or several separated by commas (`cuda:0,cuda:1`). `auto` is a GPU where
            there is one, and for several workers all of them.
        several:
            Whether there are several workers.

    Raises:
        InputError: there is no such device here.
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
