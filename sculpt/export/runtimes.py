"""Runtimes of this machine's CPU: one function prepares a network for each."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.config.search import Runtime
from sculpt.errors import InputError
from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import find_compiler, load_c
from sculpt.export.module import to_module, without_gradients
from sculpt.export.program import Program

Runner = Callable[[Tensor], Any]
"""Computes the logits of images (N, ...), float32 on the CPU."""

Prepared = Callable[[int], Runner]
"""Starts a network that was prepared for a runtime, on so many threads."""


def by_torch(network: Program | nn.Module) -> Prepared:
    """Prepare a network for PyTorch, whose threads are those of the process."""
    module = to_module(network) if isinstance(network, Program) else network.eval()
    # The CPU's convolutions then take two thirds of the time (ResNet and VGG16, batch 1).
    run = without_gradients(module.to(memory_format=torch.channels_last))
    return lambda threads: run


def by_onnxruntime(network: Program) -> Prepared:
    """Prepare a network for ONNX Runtime, its weights whole: loading unpacks sparse ones."""
    from sculpt.export.onnx_file import to_onnx

    written = to_onnx(network, plain=True).SerializeToString()
    return lambda threads: start_onnxruntime(written, threads)


def by_c(network: Program) -> Prepared:
    """Compile a network's own C code, which leaves out the zeros."""
    with tempfile.NamedTemporaryFile(suffix=".c") as source:
        Path(source.name).write_text(c_code(network), encoding="utf-8")
        library = load_c(Path(source.name))
    return lambda threads: lambda images: library.run(images.numpy(), threads=threads)


RUNTIMES: dict[Runtime, Callable[[Program], Prepared]] = {
    "torch": by_torch,
    "onnxruntime": by_onnxruntime,
    "c": by_c,
}


def start_onnxruntime(model: bytes | str, threads: int = 0) -> Runner:
    """Start ONNX Runtime on a model, or on the file of one; with 0 threads, on all there are.

    It has exceptions of its own for a model that cannot be loaded. InputError if it is missing.
    """
    with needing_onnx():
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # faults of a model are in the exception
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})[0]


def missing_runtime(name: Runtime) -> str | None:
    """Say what a runtime lacks on this machine and how to install it; None if nothing."""
    try:
        if name == "c":
            find_compiler()
        if name == "onnxruntime":
            with needing_onnx():
                import onnx  # noqa: F401
                import onnxruntime  # noqa: F401
    except InputError as error:
        return str(error)
    return None


@contextmanager
def needing_onnx() -> Iterator[None]:
    """Import packages of ONNX; InputError if one is not installed."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"ONNX and ONNX Runtime are needed, but {error.name} is not installed; pip install "
            "'sculpt[export]'"
        ) from error
