"""C: one source file with its own sparse code, which any C compiler turns into a library."""

from pathlib import Path

import torch

from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import load_c
from sculpt.export.formats import Network, Run
from sculpt.registry import FORMATS


@FORMATS.register("c")
class CFormat:
    """Reads only the kept weights, and so takes time only for them."""

    file = "network.c"
    kind = "a C file of `sculpt export --format c`"
    is_code = True
    purpose = "source code of the sparse network, for a C compiler: fast because it is sparse"
    example = """\
import ctypes, os, subprocess, numpy as np
flags = ["-std=c11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared"]
subprocess.run(["cc", *flags, "{file}", "-o", "network.so", "-lm"], check=True)
library = ctypes.CDLL(os.path.abspath("network.so"))
library.sculpt_workspace_bytes.restype = ctypes.c_size_t
images = np.zeros({shape}, np.float32)  # normalised
logits = np.empty((len(images), {classes}), np.float32)
size = library.sculpt_workspace_bytes(len(images), 1)
memory = np.empty(size + 64, np.uint8)
workspace = memory.ctypes.data + -memory.ctypes.data % 64  # aligned
pointers = [ctypes.c_void_p(array.ctypes.data) for array in (images, logits)]
library.sculpt_run(pointers[0], len(images), pointers[1], ctypes.c_void_p(workspace),
                   ctypes.c_size_t(size), 1)
"""

    @staticmethod
    def content(network: Network) -> bytes:
        """Return the content of the file."""
        found = network.metadata
        title = f"{found.get('study')}, trial {found.get('trial')}"
        return c_code(network.program, title).encode()

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Compile the file and return a function that runs it, whatever it does."""
        library = load_c(path)
        return lambda images: torch.from_numpy(library.run(images.numpy()))
