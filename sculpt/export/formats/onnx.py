"""ONNX, for every runtime; sparse weights unpack themselves when the file is loaded."""

from pathlib import Path

import torch

from sculpt.errors import InputError
from sculpt.export.formats import Network, Run
from sculpt.export.program import Program
from sculpt.export.runtimes import start_onnxruntime
from sculpt.files import replacing
from sculpt.registry import FORMATS


def write_onnx(program: Program, path: Path, *, plain: bool = False) -> None:
    """Write a program as an ONNX file, see `sculpt.export.onnx_file.to_onnx`.

    Raises:
        InputError: the package `onnx` is not installed.
        NumericsError: a value is not finite in float32.
        OSError: nothing can be written there; the file is then as it was.
    """
    try:
        import onnx  # noqa: F401

        from sculpt.export.onnx_file import to_onnx
    except ImportError as error:
        raise InputError(
            "ONNX files must be made by the package onnx, but it is not installed; pip install "
            "'sculpt[export]'"
        ) from error
    data = to_onnx(program, plain=plain).SerializeToString(deterministic=True)
    with replacing(path) as part:
        part.write_bytes(data)


@FORMATS.register("onnx")
class OnnxFormat:
    """Compact, batch norms folded, sparse weights stored sparse."""

    file = "network.onnx"
    purpose = "the compact network for any ONNX runtime, its sparse weights stored sparse"
    plain = False
    example = """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{file}")
images = np.zeros({shape}, np.float32)  # normalised
logits = session.run(None, {{"images": images}})[0]
"""

    @classmethod
    def write(cls, network: Network, path: Path) -> None:
        """Write the file."""
        write_onnx(network.program, path, plain=cls.plain)

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file in ONNX Runtime."""
        try:
            run = start_onnxruntime(str(path))
        except ImportError as error:
            raise InputError(
                "ONNX files must be run by ONNX Runtime, but it is not installed; pip install "
                "'sculpt[export]'"
            ) from error
        except Exception as error:  # the only common class of its exceptions
            raise InputError(
                f"{path}: must be an ONNX file, but is not read ({error!s:.300})"
            ) from error
        return lambda images: torch.from_numpy(run(images))


@FORMATS.register("onnx_plain")
class PlainOnnxFormat(OnnxFormat):
    """The same with every weight stored whole, for tools that do not fold constants."""

    file = "network-plain.onnx"
    purpose = "the same with all weights stored whole, for tools that do not fold constants"
    plain = True
