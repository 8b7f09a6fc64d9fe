"""A trained sparse network from its file, to start others from: its mask, or its weights too."""

from pathlib import Path

from torch import nn

from sculpt.bundle import NETWORK_FILE, Bundle, read_bundle
from sculpt.diagnostics.layers import prunable_parameters, weight_of
from sculpt.errors import InputError

FROM_BUNDLE = "from_bundle"
"""The name of the criterion that takes the mask, and of the initializer that takes the weights."""


def read_trained(path: str | Path) -> Bundle:
    """Read a trained network: a bundle, or a folder of an export, which has one.

    Raises:
        InputError: there is no such file, it is none of ours, or it is damaged.
    """
    path = Path(path)
    return read_bundle(path / NETWORK_FILE if path.is_dir() else path)


def fitting_layers(model: nn.Module, trained: Bundle, path: str | Path) -> set[str]:
    """Return the names of the weights that a trained network has in the shape they have here.

    Raises:
        InputError: there is none, or the model has no conv or linear layer.
    """
    weights = {n: p for n, p in prunable_parameters(model).items() if n == weight_of(n)}
    shapes = {name: tuple(tensor.shape) for name, tensor in trained.state.items()}
    fitting = {name for name, weight in weights.items() if shapes.get(name) == weight.shape}
    if not fitting:
        name, weight = next(iter(weights.items()))
        raise InputError(
            f"a trained network must have layers of this network, but {path} has none of the same "
            f"name and shape: for {name} of shape {tuple(weight.shape)} it has "
            f"{shapes.get(name, 'no such tensor')}; give that of a network with the same options"
        )
    return fitting


def check_not_repaired(initializer: str, repair: bool | str) -> None:
    """Refuse to repair (in whatever way) the isometry of weights that are trained already.

    Raises:
        InputError: the weights are those of a trained network, and are to be repaired.
    """
    if initializer == FROM_BUNDLE and repair:
        raise InputError(
            f"pruning.repair must be false with the initializer {FROM_BUNDLE}, but is {repair!r}: "
            "the repair would undo the trained weights; set pruning.repair to false, or take "
            "another initializer"
        )
