"""ONNX, for every runtime; sparse weights unpack themselves when the file is loaded."""

from pathlib import Path

import torch

from sculpt.export.formats import Network, Run
from sculpt.export.runtimes import needing_onnx, start_onnxruntime
from sculpt.registry import FORMATS


@FORMATS.register("onnx")
class OnnxFormat:
    """Compact, batch norms folded, sparse weights stored sparse."""

    file = "network.onnx"
    kind = "an ONNX file"
    is_code = False
    purpose = "the compact network for any ONNX runtime, its sparse weights stored sparse"
    plain = False
    example = """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{file}")
images = np.zeros({shape}, np.float32)  # normalised
logits = session.run(None, {{"images": images}})[0]
"""

    @classmethod
    def content(cls, network: Network) -> bytes:
        """Return the content of the file."""
        with needing_onnx():
            import onnx  # noqa: F401

            from sculpt.export.onnx_file import to_onnx
        return to_onnx(network.program, plain=cls.plain).SerializeToString(deterministic=True)

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file in ONNX Runtime."""
        run = start_onnxruntime(str(path))
        return lambda images: torch.from_numpy(run(images))


@FORMATS.register("onnx_plain")
class PlainOnnxFormat(OnnxFormat):
    """The same with every weight stored whole, for tools that do not fold constants."""

    file = "network-plain.onnx"
    purpose = "the same with all weights stored whole, for tools that do not fold constants"
    plain = True
