"""Checks of what users give: networks, inputs, and what networks return."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sculpt.diagnostics.layers import describe, weighted_parameters
from sculpt.errors import InputError, NumericsError


def check_output(output: object) -> Tensor:
    """Return what a network returned, if it is one tensor.

    Raises:
        InputError: it is something else; the message says what.
    """
    if not isinstance(output, Tensor):
        raise InputError(
            f"a network must return one tensor, but returned {describe(output)}; wrap it in a "
            "module that returns its logits alone"
        )
    return output


def material_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """List the weights and biases of conv and linear layers, after a look whether they are there.

    Raises:
        InputError: there are none, or one has no values yet, or was made in inference mode.
    """
    parameters = weighted_parameters(model)
    for name, parameter in parameters.items():
        if is_lazy(parameter):
            mend = "run one batch through the network"
        elif parameter.is_meta:
            mend = "bring the network from the meta device with to_empty(device=...)"
        elif parameter.is_inference():
            mend = "make the network outside of torch.inference_mode"
        else:
            continue
        raise InputError(
            f"weights must have values that can be changed, but {name} has none; {mend}"
        )
    return parameters


def check_inputs(inputs: object, model: nn.Module, *, derivable: bool = False) -> Tensor:
    """Refuse inputs that are no batch of numbers where the model is.

    Args:
        inputs: One float tensor (N, ...), of the type of the model's weights; or whole numbers
            (N, ...) if it has embeddings.
        derivable: Whether the output must be differentiable by them: then floats, of any type.

    Returns:
        The inputs, as a tensor that autograd accepts.

    Raises:
        InputError: they are something else; the message says what.
        NumericsError: one of them is not finite.
    """
    parameters = list(weighted_parameters(model).values())
    embeds = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules())
    types = {p.dtype for p in parameters} | ({torch.int64, torch.int32} if embeds else set())
    if isinstance(inputs, Tensor) and derivable and inputs.is_floating_point():
        types.add(inputs.dtype)
    if not isinstance(inputs, Tensor) or inputs.dtype not in types or inputs.dim() < 2:
        wanted = " or ".join(sorted(map(str, types)))
        raise InputError(
            f"inputs must be one tensor (N, ...) of {wanted}, normalised, but got "
            f"{describe(inputs)}; stack them, and convert them with .to({wanted.split()[0]})"
        )
    if inputs.device != parameters[0].device:
        raise InputError(
            f"inputs must be where the network is, but that is on {parameters[0].device} and "
            f"they are on {inputs.device}; move one of them with .to(device)"
        )
    if not inputs.isfinite().all():
        raise NumericsError(
            f"inputs must be finite numbers, but {int((~inputs.isfinite()).sum())} are not; check "
            "the images and their normalisation"
        )
    return inputs.clone() if inputs.is_inference() else inputs
