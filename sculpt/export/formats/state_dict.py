"""The plain state: whole tensors by parameter name, pruned weights as zeros."""

import copy
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sculpt.errors import InputError
from sculpt.export.formats import Network, Run
from sculpt.export.module import without_gradients
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
        model = copy.deepcopy(network.model)
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(
                f"{path}: must be the state of the network beside it, but is not ({error!s:.300})"
            ) from error
        return without_gradients(model)
