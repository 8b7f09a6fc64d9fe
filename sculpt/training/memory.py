"""Memory of the device and of the process: kept while it is of use, and told when it runs out."""

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
    """Return whether an error says that a device, or the host, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator, some of CUDA's libraries, and CUDA itself where it makes a context or a
    # graph, raise a plain RuntimeError.
    words = (
        "not enough memory",
        "can't allocate memory",
        "CUDA out of memory",
        "CUDA error: out of memory",
        "ALLOC_FAILED",
    )
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for the whole process; does nothing without glibc.

    By default glibc gives every tensor above 32 MiB back to the system when it is freed, and
    the next step pays a page fault for each of its pages: a fifth of a wide network's time.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def release_memory(device: torch.device) -> None:
    """Give back what no tensor uses any more: between trials, not within one."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if library := _glibc():
        library.malloc_trim(0)


@contextmanager
def long_lived() -> Iterator[None]:
    """Let garbage collection pass over all that is there now, until the block ends.

    The trials of a large study take it a third of a second, and it runs after each trial.
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
    """Turn an error of the allocator into one that says what to do.

    Raises:
        DeviceMemoryError: the memory ran out inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # The error holds the frames, and they hold the tensors that took the memory.
        traceback.clear_frames(error.__traceback__)
        reason = str(error).partition("\n")[0]
        raise DeviceMemoryError(
            f"the network and its images must fit into the memory of {device}, but do not "
            f"({reason}); lower pruning.batch_size or training.batch_size, or use a larger device"
        ) from None
