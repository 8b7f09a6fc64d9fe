"""PyTorch's own program (`torch.export`): runs without the network's code."""

import copy
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from sculpt.errors import ExportError, InputError
from sculpt.export.formats import Network, Run, without_gradients
from sculpt.files import replacing
from sculpt.registry import FORMATS

LARGEST_BATCH = 65536


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

        return without_gradients(program)


def write_pt2(module: nn.Module, example_shape: tuple[int, ...], path: Path) -> None:
    """Write a network in evaluation mode, for float32 and batches of any size up to 65536.

    `torch.export.load(path).module()` is the network.

    Args:
        module:
            On any device; it is not changed.
        example_shape:
            Of one image.
        path:
            The file to write.

    Raises:
        ExportError: its forward pass cannot be traced, or its logits are others afterwards.
        OSError: nothing can be written there; the file is then as it was.
    """
    network = copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)
    exported = _trace(network, example_shape)
    for node in exported.graph.nodes:
        # It names files of this machine.
        node.meta.pop("stack_trace", None)
    # Not by its path: PyTorch insists on an ending that an unfinished file does not have.
    written = io.BytesIO()
    torch.export.save(exported, written)
    _check(network, written, example_shape)
    with replacing(path) as part:
        part.write_bytes(written.getvalue())


def _trace(network: nn.Module, example_shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    # A size of 1 would be taken as a constant of the network.
    images = torch.zeros(2, *example_shape)
    try:
        with torch.no_grad():
            return torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    except Exception as error:
        # Whatever a foreign forward pass raises when it is given symbols for tensors.
        raise ExportError(
            "a network's forward pass must be traceable to be exported as pt2 (torch.export), but "
            f"that of {type(network).__name__} is not ({str(error).strip().partition(chr(10))[0]})"
            "; export it as bundle or state_dict"
        ) from error


@torch.no_grad()
def _check(network: nn.Module, written: io.BytesIO, example_shape: tuple[int, ...]) -> None:
    """Compare what was written with the network, at sizes of a batch that it was not traced at."""
    written.seek(0)
    exported = torch.export.load(written).module()
    images = torch.randn(3, *example_shape, generator=torch.Generator().manual_seed(0))
    for batch in (images, images[:1]):
        expected: Tensor = network(batch)
        error = (exported(batch) - expected).abs().max().item()
        # The same operations: only their order within a sum may be another.
        if not error <= 1e-5 * max(1.0, expected.abs().max().item()):
            raise ExportError(
                f"logits of the exported network must be its own, but differ by {error:.1e} at "
                f"batch {len(batch)}; export it as bundle or state_dict"
            )
