"""The plain state: whole tensors by parameter name, pruned weights as zeros."""

from pathlib import Path

from safetensors.torch import load_file, save

from sculpt.export.formats import Network, Run
from sculpt.registry import FORMATS


@FORMATS.register("state_dict")
class StateDictFormat:
    """As safetensors, because a pickle could run anything when it is opened."""

    file = "state_dict.safetensors"
    kind = "the state of the network beside it"
    is_code = False
    purpose = "whole tensors by parameter name, for the PyTorch module of the same names"
    example = """\
from safetensors.torch import load_file
state = load_file("{file}")
# model.load_state_dict(state), of a module with these names
shapes = {{name: tuple(tensor.shape) for name, tensor in state.items()}}
"""

    @staticmethod
    def content(network: Network) -> bytes:
        """Return the content of the file."""
        state = network.model.state_dict()
        # Copies, because a weight that layers share may not stand in a file twice.
        return save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()})

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file."""
        return network.run_with(load_file(path))
