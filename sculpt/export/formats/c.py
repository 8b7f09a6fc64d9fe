"""C: one source file with its own sparse code, which any C compiler turns into a library."""

import tempfile
from pathlib import Path

import torch

from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import CLibrary, compile_library
from sculpt.export.formats import Network, Run
from sculpt.files import replacing
from sculpt.registry import FORMATS


@FORMATS.register("c")
class CFormat:
    """Reads only the kept weights, and so takes time only for them."""

    file = "network.c"
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
    def text(network: Network) -> str:
        """Return the source."""
        found = network.metadata
        return c_code(network.program, f"{found.get('study')}, trial {found.get('trial')}")

    @staticmethod
    def write(network: Network, path: Path) -> None:
        """Write the file."""
        text = CFormat.text(network)
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Compile the file and return a function that runs it, whatever it does."""
        with tempfile.TemporaryDirectory() as folder:
            library = CLibrary(compile_library(path, Path(folder, "network.so")))
        return lambda images: torch.from_numpy(library.run(images.numpy()))
