"""Compiling an exported C file, and running it from Python."""

import ctypes
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sculpt.errors import InputError
from sculpt.export.c_code.generate import Info

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c11", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared")
"""Multiplications and additions become one instruction where there is one: that rounds once
instead of twice, where `-ffast-math` would give up exactness."""
OPENMP = "-fopenmp"
LIBRARIES = ("-lm",)

ALIGNMENT = 64
"""Alignment of the workspace, in bytes."""


def find_compiler() -> list[str]:
    """Return the command of the user's C compiler: `$CC`, or the first that is installed.

    Raises:
        InputError: none is.
    """
    given = os.environ.get("CC", "")
    try:
        wanted = shlex.split(given)
    except ValueError as error:
        raise InputError(
            f"$CC must be the command of a C compiler, but got {given!r} ({error}); correct or "
            "unset it"
        ) from error
    if wanted:
        if shutil.which(wanted[0]) is None:
            raise InputError(
                f"$CC must be the command of a C compiler, but got {' '.join(wanted)!r}, which is "
                "not installed here; correct or unset it"
            )
        return wanted
    for name in COMPILERS:
        if shutil.which(name) is not None:
            return [name]
    raise InputError(
        f"a C compiler is needed, but none of {', '.join(COMPILERS)} is found; install GCC or "
        "Clang, or set $CC to the command of one"
    )


def compile_library(source: Path, library: Path) -> Path:
    """Compile C code into a shared library, and return it; with threads if there is OpenMP.

    Raises:
        InputError: there is no compiler, or it refuses the file.
    """
    command = find_compiler()
    for threads in ([OPENMP], []):
        done = subprocess.run(
            [*command, *FLAGS, *threads, str(source), "-o", str(library), *LIBRARIES],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode == 0:
            return library
    raise InputError(
        f"{source}: must be a C file that {' '.join(command)} compiles, but it says: "
        f"{done.stderr.strip()[:1000]}; export it anew, or set $CC to GCC or Clang"
    )


def load_c(source: Path) -> "CLibrary":
    """Compile C code, and load it: it may do anything. InputError as `compile_library` raises."""
    with tempfile.TemporaryDirectory() as folder:
        return CLibrary(compile_library(source, Path(folder, "network.so")))


class CLibrary:
    """A compiled network."""

    def __init__(self, path: Path) -> None:
        """Load it.

        Raises:
            InputError: it is not a shared library of an exported network.
        """
        try:
            self._library = library = ctypes.CDLL(str(path.resolve()))
            self._bytes, self._run = library.sculpt_workspace_bytes, library.sculpt_run
            info = library.sculpt_info
        except (OSError, AttributeError) as error:
            raise InputError(
                f"{path}: must be a shared library compiled from a file of `sculpt export "
                f"--format c` ({error}); compile it anew on this machine"
            ) from error
        size, integer, pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
        self._bytes.restype, self._bytes.argtypes = size, [integer, integer]
        self._run.restype = integer
        self._run.argtypes = [pointer, integer, pointer, pointer, size, integer]
        info.restype, info.argtypes = ctypes.c_char_p, []
        self.info: Info = json.loads(info())
        """The library's description of its network."""
        # Each thread keeps its workspace: new memory for every call costs a small network more
        # than the call does.
        self._memory = threading.local()

    def run(self, images: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
        """Return the logits (N, classes) of float32 images (N, channels, height, width).

        At most one thread is used for each group of images that fills the lanes. InputError if the
        images or the threads do not fit.
        """
        shape = tuple(self.info["input_shape"])
        fit = images.dtype == np.float32 and images.shape[1:] == shape and len(images) > 0
        if not fit or threads < 1:
            raise InputError(
                f"images must be float32 of shape (N, {', '.join(map(str, shape))}), and N and the "
                f"threads at least 1, but got {images.dtype} of shape {images.shape} and {threads} "
                "threads; convert them before"
            )
        images = np.ascontiguousarray(images)
        logits = np.empty((len(images), self.info["classes"]), np.float32)
        size = self._bytes(len(images), threads)
        workspace = self._workspace(size)
        pointers = images.ctypes.data, logits.ctypes.data
        code = self._run(pointers[0], len(images), pointers[1], workspace, size, threads)
        if code:  # an assertion would be left out by python -O
            raise RuntimeError(f"sculpt_run must return 0, but returned {code}")
        return logits

    def _workspace(self, size: int) -> int:
        """Return the aligned address of at least `size` bytes of this thread."""
        memory: NDArray[np.uint8] | None = getattr(self._memory, "array", None)
        if memory is None or memory.size < size + ALIGNMENT:
            memory = self._memory.array = np.empty(size + ALIGNMENT, np.uint8)
        return int(memory.ctypes.data + -memory.ctypes.data % ALIGNMENT)
