"""PyTorch's own program (`torch.export`): runs without the network's code."""

import io
from pathlib import Path

import torch
from torch import nn

from sculpt.errors import ExportError
from sculpt.export.formats import Network, Run
from sculpt.export.module import without_gradients
from sculpt.graph.copies import cast, copy_network
from sculpt.registry import FORMATS

LARGEST_BATCH = 65536


@FORMATS.register("pt2")
class Pt2Format:
    """The masked network itself, pruned weights as zeros."""

    file = "network.pt2"
    kind = "a program of torch.export"
    is_code = False
    purpose = "the masked network for PyTorch, without the code that built it"
    example = """\
import torch
network = torch.export.load("{file}").module()
images = torch.zeros({shape})  # normalised
logits = network(images)
"""

    @staticmethod
    def content(network: Network) -> bytes:
        """Return the content of the file."""
        return pt2_bytes(network.model, tuple(network.images.shape[1:]))

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file."""
        return without_gradients(torch.export.load(path).module())


def pt2_bytes(module: nn.Module, example_shape: tuple[int, ...]) -> bytes:
    """Export a network in evaluation mode, for float32 and batches of any size up to 65536.

    The module, on any device, is not changed; the shape is that of one image. ExportError if its
    forward pass cannot be traced.
    """
    network = cast(copy_network(module), "cpu", torch.float32).eval().requires_grad_(False)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    # A size of 1 would be taken as a constant of the network.
    images = torch.zeros(2, *example_shape)
    try:
        with torch.no_grad():
            exported = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    except Exception as error:
        # A foreign forward pass may raise anything when it is given symbols for tensors.
        raise ExportError(
            "a network's forward pass must be traceable to be exported as pt2 (torch.export), but "
            f"that of {type(network).__name__} is not ({str(error).strip().partition(chr(10))[0]})"
            "; export it as bundle or state_dict"
        ) from error
    for node in exported.graph.nodes:
        # It names files of this machine.
        node.meta.pop("stack_trace", None)
    # Not by its path: PyTorch insists on an ending that an unfinished file does not have.
    written = io.BytesIO()
    torch.export.save(exported, written)
    return written.getvalue()
