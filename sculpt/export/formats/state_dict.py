"""The plain state: whole tensors by parameter name, pruned weights as zeros."""

from pathlib import Path

from safetensors.torch import load_file, save

from sculpt.export.formats import Network, Run
from sculpt.files import replacing
from sculpt.registry import FORMATS


@FORMATS.register("state_dict")
class StateDictFormat:
    """As safetensors, because a pickle could run anything when it is opened."""

    file = "state_dict.safetensors"
    purpose = "whole tensors by parameter name, for the PyTorch module of the same names"
    example = """\
from safetensors.torch import load_file
state = load_file("{file}")
# model.load_state_dict(state), of a module with these names
shapes = {{name: tuple(tensor.shape) for name, tensor in state.items()}}
"""

    @staticmethod
    def write(network: Network, path: Path) -> None:
        """Write the file."""
        state = network.model.state_dict()
        tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
        with replacing(path) as part:
            part.write_bytes(save(tensors))

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file."""
        return network.run_with_state(path, load_file)
