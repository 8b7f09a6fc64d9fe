"""Magnitude pruning (Han et al. 2015), of the weights as they are or of a checkpoint."""

from torch import Tensor, nn

from sculpt.errors import InputError
from sculpt.pruning.checkpoint import read_checkpoint
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("magnitude")
def magnitude(
    model: nn.Module, task: PruningTask, *, checkpoint: str | None = None
) -> dict[str, Tensor]:
    """Score every weight with its absolute value.

    Args:
        model: Any module with conv or linear layers.
        task: Not looked at.
        checkpoint: Path of another state of the same network, whose weights are taken instead, for
            example the trained one: a `.safetensors` file that sculpt has written, or a saved
            `state_dict`. What is pruned there scores 0.

    Raises:
        InputError: the checkpoint cannot be read, or does not fit the network.
    """
    parameters = prunable_parameters(model)
    if checkpoint is None:
        return {name: parameter.detach().abs() for name, parameter in parameters.items()}
    state = read_checkpoint(checkpoint)
    for name, parameter in parameters.items():
        found = f"shape {tuple(state[name].shape)}" if name in state else "no such tensor"
        if name not in state or state[name].shape != parameter.shape:
            raise InputError(
                "a checkpoint must hold every conv and linear parameter of the network, but "
                f"{checkpoint} has {found} for {name} of shape {tuple(parameter.shape)}; give "
                "the checkpoint of a network with the same options"
            )
    return {name: state[name].to(parameter).abs() for name, parameter in parameters.items()}
