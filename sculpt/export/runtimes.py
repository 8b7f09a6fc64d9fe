"""What runs a network on this machine's CPU: one function for each runtime."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sculpt.config.search import Runtime
from sculpt.errors import InputError
from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import CLibrary, compile_library, find_compiler
from sculpt.export.evaluation import to_module, without_gradients
from sculpt.export.program import Program

Runner = Callable[[Tensor], object]
"""Computes the logits of images (N, ...), float32 on the CPU."""

Prepared = Callable[[int], Runner]
"""Returns a network made ready for a runtime, on so many threads."""


def by_torch(network: Program | nn.Module) -> Prepared:
    """Make a network ready for PyTorch, whose threads are those of the process."""
    module = to_module(network) if isinstance(network, Program) else network.eval()
    # In which the CPU's convolutions take two thirds of the time (ResNet and VGG16, batch 1).
    module = module.to(memory_format=torch.channels_last)

    run = without_gradients(module)
    return lambda threads: run


def by_onnxruntime(network: Program) -> Prepared:
    """Make a network ready for ONNX Runtime, its weights whole: loading unpacks sparse ones."""
    import onnxruntime

    from sculpt.export.onnx_file import to_onnx

    written = to_onnx(network, plain=True).SerializeToString()

    def start(threads: int) -> Runner:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(written, options, ["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        return lambda images: session.run(None, {given.name: images.numpy()})[0]

    return start


def by_c(network: Program) -> Prepared:
    """Compile a network's own C code, which leaves out the zeros."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "network.c"), Path(folder, "network.so")
        source.write_text(c_code(network), encoding="utf-8")
        compiled = CLibrary(compile_library(source, library))
    return lambda threads: lambda images: compiled.run(images.numpy(), threads=threads)


RUNTIMES: dict[Runtime, Callable[[Program], Prepared]] = {
    "torch": by_torch,
    "onnxruntime": by_onnxruntime,
    "c": by_c,
}


def missing_runtime(name: Runtime) -> str | None:
    """Return what a runtime lacks on this machine and how to get it, or None."""
    try:
        if name == "c":
            find_compiler()
        if name == "onnxruntime":
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
    except InputError as error:
        return str(error)
    except ImportError:
        return "ONNX Runtime is needed, but it is not installed; pip install 'sculpt[export]'"
    return None
