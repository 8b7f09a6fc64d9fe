"""The state of a trained network, for fine-tuning instead of training from scratch."""

from torch import nn

from sculpt.diagnostics.layers import weight_of, weighted_layers
from sculpt.errors import InputError
from sculpt.initializers import draw_layers
from sculpt.initializers.trained import fitting_layers, read_trained
from sculpt.registry import FROM_BUNDLE, INITIALIZERS


@INITIALIZERS.register(FROM_BUNDLE)
def from_bundle(model: nn.Module, seed: int, *, bundle: str) -> None:
    """Copy the state of a trained network where name and shape agree.

    Weights, biases, and parameters and statistics of batch norms are copied bit for bit; pruned
    weights are 0. A layer of another shape (the classifier of another number of classes) is drawn
    by `ldi` with a bias of 0; a batch norm of another shape is fresh.

    Args:
        seed: Decides the drawn weights.
        bundle: Path of the trained network: a bundle, or a folder written by `sculpt export`.

    Raises:
        InputError: the file cannot be read, no layer fits, or the network diverged.
    """
    trained = read_trained(bundle)
    if trained.not_finite:
        raise InputError(
            f"trained weights must be finite numbers, but some of {trained.not_finite[0]} in "
            f"{bundle} are not: its training diverged; give the network of another seed or trial"
        )
    fitting = fitting_layers(model, trained, bundle)
    draw_layers(model, INITIALIZERS.get("ldi"), seed=seed, leave=fitting)
    # The bias of a layer of another shape may fit by itself, as that of a first layer does.
    others = weighted_layers(model).keys() - fitting
    for name, tensor in model.state_dict().items():
        there = trained.state.get(name)
        if there is not None and there.shape == tensor.shape and weight_of(name) not in others:
            tensor.copy_(there)
