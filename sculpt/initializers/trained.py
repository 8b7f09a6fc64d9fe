"""Trained sparse networks that others start from: their masks, or their weights too."""

from pathlib import Path

from torch import nn

from sculpt.bundle import NETWORK_FILE, Bundle, read_bundle
from sculpt.diagnostics.layers import weighted_parameters, weights_of
from sculpt.errors import InputError
from sculpt.registry import FROM_BUNDLE


def read_trained(path: str | Path) -> Bundle:
    """Read a trained network: a bundle, or an exported folder with one.

    Raises:
        InputError: the file is missing, damaged, or not a bundle.
    """
    path = Path(path)
    return read_bundle(path / NETWORK_FILE if path.is_dir() else path)


def fitting_layers(model: nn.Module, trained: Bundle, path: str | Path) -> set[str]:
    """Find the weights of the model that a trained network has in the same shape.

    Raises:
        InputError: there is none, or the model has no conv or linear layer.
    """
    owners = weights_of(model)
    weights = {n: p for n, p in weighted_parameters(model).items() if owners[n] == n}
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
    """Refuse to repair the isometry of trained weights.

    Raises:
        InputError: the initializer takes trained weights, and `repair` is set.
    """
    if initializer == FROM_BUNDLE and repair:
        raise InputError(
            f"pruning.repair must be false with the initializer {FROM_BUNDLE}, but is {repair!r}: "
            "the repair would undo the trained weights; set pruning.repair to false, or take "
            "another initializer"
        )
