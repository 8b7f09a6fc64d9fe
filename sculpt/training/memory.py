"""Memory of the device and of the process: keeping it, releasing it, and running out of it."""

import ctypes
import gc
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sculpt.errors import DeviceMemoryError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a device, or the host, is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator, some CUDA libraries, and CUDA itself when it makes a context or a graph
    # raise a plain RuntimeError. So does cuDNN, which then finds no algorithm whose memory fits.
    words = (
        "not enough memory",
        "can't allocate memory",
        "CUDA out of memory",
        "CUDA error: out of memory",
        "ALLOC_FAILED",
        "unable to find an engine to execute this computation",
    )
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, for the whole process; without glibc, do nothing.

    By default it returns every freed tensor above 32 MiB to the system, and the next step pays a
    page fault for each of its pages: a fifth of a wide network's time.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def release_memory(device: torch.device) -> None:
    """Return unused memory to the system: between trials, not within one."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if library := _glibc():
        library.malloc_trim(0)


@contextmanager
def long_lived() -> Iterator[None]:
    """Exempt all present objects from garbage collection until the block ends.

    A collection runs after each trial, and takes a third of a second over a large study's trials.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    # musl has neither.
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@contextmanager
def within_memory(device: torch.device) -> Iterator[None]:
    """Turn an allocator's error into one that says how to mend it.

    Raises:
        DeviceMemoryError: the memory ran out in the block.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # The error holds the frames, and the frames hold the tensors.
        traceback.clear_frames(error.__traceback__)
        reason = str(error).partition("\n")[0]
        raise DeviceMemoryError(
            f"the network and its images must fit into the memory of {device}, but do not "
            f"({reason}); lower pruning.batch_size or training.batch_size, or use a larger device"
        ) from None
