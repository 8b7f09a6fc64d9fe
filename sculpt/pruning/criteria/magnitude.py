"""Magnitude pruning (Han et al. 2015), of the present weights or those of a checkpoint."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sculpt.bundle import is_bundle, read_bundle
from sculpt.errors import InputError
from sculpt.files import check_file
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("magnitude")
def magnitude(
    model: nn.Module, task: PruningTask, *, checkpoint: str | None = None
) -> dict[str, Tensor]:
    """Score every weight with its absolute value.

    Args:
        checkpoint: Path of another state of the same network to score instead, for example the
            trained one: a `.safetensors` file written by sculpt, or a saved `state_dict`. Weights
            pruned there score 0.

    Raises:
        InputError: the checkpoint cannot be read, or does not fit the network.
    """
    parameters = prunable_parameters(model)
    if checkpoint is None:
        return {name: parameter.detach().abs() for name, parameter in parameters.items()}
    state = read_saved_state(checkpoint)
    for name, parameter in parameters.items():
        found = f"shape {tuple(state[name].shape)}" if name in state else "no such tensor"
        if name not in state or state[name].shape != parameter.shape:
            raise InputError(
                "a checkpoint must hold every conv and linear parameter of the network, but "
                f"{checkpoint} has {found} for {name} of shape {tuple(parameter.shape)}; give "
                "the checkpoint of a network with the same options"
            )
    return {name: state[name].to(parameter).abs() for name, parameter in parameters.items()}


def read_saved_state(file: str) -> dict[str, Tensor]:
    """Read the tensors of a saved network, on the CPU.

    Args:
        file: With the suffix `.safetensors`, a network written by sculpt (pruned weights are read
            as 0), or plain tensors by name; else a `state_dict` written by `torch.save`.

    Raises:
        InputError: the file is missing, unreadable, or of another content.
    """
    path = Path(file)
    try:
        check_file(path)
        if path.suffix == ".safetensors":
            return read_bundle(path).state if is_bundle(path) else load_file(path, device="cpu")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Not only OSError: bytes that are no checkpoint fail anywhere inside the readers.
        raise InputError(
            f"a checkpoint must be a readable safetensors file or a saved state_dict, but {path} "
            f"is not ({type(error).__name__}: {error}); check the path, or write it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(
            f"a checkpoint must map parameter names to tensors, but {path} does not; save "
            "model.state_dict(), not the model or a dictionary around it"
        )
    return state
