"""PyTorch's own program (`torch.export`): runs without the network's code."""

from pathlib import Path

import torch
from torch import Tensor

from sculpt.errors import InputError
from sculpt.export.formats import Network, Run
from sculpt.export.pt2_file import write_pt2
from sculpt.registry import FORMATS


@FORMATS.register("pt2")
class Pt2Format:
    """The masked network as it stands, zeros among its weights."""

    file = "network.pt2"
    purpose = "the masked network for PyTorch, without the code that built it"
    example = """\
import torch
network = torch.export.load("{file}").module()
images = torch.zeros({shape})  # normalised
logits = network(images)
"""

    @staticmethod
    def write(network: Network, path: Path) -> None:
        """Write the file."""
        write_pt2(network.model, tuple(network.images.shape[1:]), path)

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return what runs the file."""
        try:
            program = torch.export.load(path).module()
        except Exception as error:  # whatever its reader meets in a foreign file
            raise InputError(
                f"{path}: must be a program of torch.export, but is not read ({error!s:.300})"
            ) from error

        def run(images: Tensor) -> Tensor:
            with torch.no_grad():
                return program(images)

        return run
