"""ONNX: for every runtime; sparse weights unpack themselves when the file is loaded."""

from pathlib import Path

import torch
from torch import Tensor

from sculpt.errors import InputError
from sculpt.export.formats import Network, Run
from sculpt.export.onnx_file import write_onnx
from sculpt.registry import FORMATS


def open_onnx(path: Path, threads: int = 0) -> Run:
    """Return what runs an ONNX file by ONNX Runtime, on so many threads; 0 is its own choice.

    Raises:
        InputError: ONNX Runtime is not installed, or does not read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "ONNX files must be run by ONNX Runtime, but it is not installed; pip install "
            "'sculpt[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what is wrong with a file is in the exception
    try:
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its exceptions have no common class but this
        raise InputError(
            f"{path}: must be an ONNX file, but is not read ({error!s:.300})"
        ) from error

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


class _Onnx:
    example = """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{file}")
images = np.zeros({shape}, np.float32)  # normalised
logits = session.run(None, {{"images": images}})[0]
"""

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return what runs the file."""
        return open_onnx(path)


@FORMATS.register("onnx")
class OnnxFormat(_Onnx):
    """Compact, batch norms folded, sparse weights stored sparse."""

    file = "network.onnx"
    purpose = "the compact network for any ONNX runtime, its sparse weights stored sparse"

    @staticmethod
    def write(network: Network, path: Path) -> None:
        """Write the file."""
        write_onnx(network.program, path)


@FORMATS.register("onnx_plain")
class PlainOnnxFormat(_Onnx):
    """The same with every weight stored whole, for tools that do not fold constants."""

    file = "network-plain.onnx"
    purpose = "the same with all weights stored whole, for tools that do not fold constants"

    @staticmethod
    def write(network: Network, path: Path) -> None:
        """Write the file."""
        write_onnx(network.program, path, plain=True)
