"""Signal propagation: singular values of a network's Jacobian, whole and layer by layer.

Lee et al. 2020, §4: a network propagates signals faithfully if the singular values of its
input-output Jacobian are near 1 (dynamical isometry), and it does if those of every layer are
(layerwise dynamical isometry). Everything is computed on a copy in inference mode, in float64
unless another precision is asked for.
"""

import copy
import math
from collections import defaultdict
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.topology import REPLACED_BY_IDENTITY
from sculpt.errors import InputError, NumericsError
from sculpt.record import JacobianSpectrum

ELEMENTS_AT_ONCE = 2**24
"""Bounds what a chunk of images keeps in memory: 128 MiB of activations and Jacobians."""

IMAGES_AT_ONCE = 256
"""Larger chunks leave the caches and are slower."""

LARGEST_LAYER_JACOBIAN = 2**20
"""Elements of a layer's Jacobian for one image; at most, that is 8 MiB and half a second."""


def jacobian_singular_values(
    model: nn.Module,
    inputs: Tensor,
    *,
    batch_size: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return the singular values of each image's Jacobian ∂ output / ∂ input.

    They come from a QR decomposition and an SVD of its small factor. The eigenvalues of J Jᵀ
    would be three times as fast but square the condition, which leaves half of the digits of
    the smallest values.

    Args:
        model:
            Maps (N, ...) to logits (N, classes), each image by itself in inference mode; it is
            not changed.
        inputs:
            Normalised images (N, ...), where the model is.
        batch_size:
            Images at once; by default as many as 128 MiB hold.
        dtype:
            What the derivatives are computed in. float32 is faster for large convnets, and
            leaves 7 digits of the largest singular value for all of them together.

    Returns:
        float64 (N, min(classes, pixels)), largest first. What cannot be told from 0 (below
        ε · max(classes, pixels) of the image's largest, as for a matrix's rank) is 0.

    Raises:
        InputError: there are no images.
        NumericsError: a derivative is not finite.
    """
    network = _inference_copy(model, dtype)
    size = batch_size or _images_at_once(network, inputs, dtype)
    return _singular_values(network, inputs, size, dtype)


def summarize_jacobian(values: Tensor) -> JacobianSpectrum:
    """Pool singular values (N, values of one image) over the images.

    Raises:
        InputError: there are none.
    """
    if values.numel() == 0:
        raise InputError("there must be singular values to summarize, but got none; give images")
    pool = values.double()
    smallest, largest = float(pool.min()), float(pool.max())
    condition = largest / smallest if smallest > 0 else math.inf
    return JacobianSpectrum(
        mean=float(pool.mean()),
        std=float(pool.std(correction=0)),
        min=smallest,
        max=largest,
        condition=condition if math.isfinite(condition) else None,
        images=len(values),
    )


def layer_jacobian_singular_values(model: nn.Module, inputs: Tensor) -> dict[str, JacobianSpectrum]:
    """Return the spectra of the layerwise Jacobians J^{l−1,l} = D^l W^l (Lee et al. 2020, §4.1).

    A layer here is a conv or linear layer and the batch norm and activation modules that take
    its output one after the other; an activation behind a residual sum, or one that is a
    function instead of a module, belongs to no layer.

    Args:
        model:
            As for `jacobian_singular_values`.
        inputs:
            Normalised images (N, ...). A few are enough: a layer takes up to half a second each.

    Returns:
        Keyed by the weight's parameter name, in order of execution; a layer that is used twice
        pools both uses. Exact. A layer whose Jacobian for one image has more than
        `LARGEST_LAYER_JACOBIAN` elements (a convolution on a large image) is left out.

    Raises:
        InputError: there are no images.
        NumericsError: a derivative is not finite.
    """
    dtype = torch.float64
    network = _inference_copy(model, dtype)
    values: dict[str, list[Tensor]] = defaultdict(list)
    for batch in inputs.split(_images_at_once(network, inputs, dtype)):
        uses: dict[str, list[Tensor]] = defaultdict(list)
        for name, layer, layer_inputs in _record_layers(network, batch.to(dtype)):
            size = layer_inputs[0].numel() * layer(layer_inputs[:1]).numel()
            if size <= LARGEST_LAYER_JACOBIAN:
                at_once = max(1, min(IMAGES_AT_ONCE, ELEMENTS_AT_ONCE // size))
                uses[name].append(_singular_values(layer, layer_inputs, at_once, dtype))
        for name, parts in uses.items():
            values[name].append(torch.cat(parts, dim=1))
    return {name: summarize_jacobian(torch.cat(parts)) for name, parts in values.items()}


def _inference_copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    # Not channels last: torch.func has no batched rule for pooling there and takes ten times as
    # long, with a warning.
    network = copy.deepcopy(model).to(dtype).to(memory_format=torch.contiguous_format)
    return network.eval().requires_grad_(False)


def _images_at_once(network: nn.Module, inputs: Tensor, dtype: torch.dtype) -> int:
    """Return how many images fill a chunk with their activations and Jacobians."""
    if len(inputs) == 0:
        raise InputError("there must be images to take the Jacobian at, but got none")
    outputs = network(inputs[:1].to(dtype)).numel()
    activations = measure_cost(network, tuple(inputs.shape[1:])).activations
    elements = activations + outputs * inputs[0].numel()
    return max(1, min(IMAGES_AT_ONCE, ELEMENTS_AT_ONCE // elements))


def _singular_values(
    network: nn.Module, inputs: Tensor, batch_size: int, dtype: torch.dtype
) -> Tensor:
    """Return the singular values (N, smaller side) of a network, largest first."""
    with torch.no_grad():
        outputs = network(inputs[:1].to(dtype)).numel()

    def one(image: Tensor) -> Tensor:
        return network(image.unsqueeze(0)).flatten()

    # One pass back per output. Forward mode would be cheaper where there are more outputs than
    # inputs, but importing it makes PyTorch 2.15 warn of its own use of torch.jit.
    jacobian = vmap(jacrev(one))
    parts = []
    for batch in inputs.split(batch_size):
        matrices = jacobian(batch.detach().to(dtype).contiguous()).reshape(len(batch), outputs, -1)
        if not matrices.isfinite().all():
            raise NumericsError(
                "every derivative of the output must be finite, but some are not; check the "
                "network's weights and the input images"
            )
        tall = matrices if outputs > matrices.shape[2] else matrices.mT
        values = torch.linalg.svdvals(torch.linalg.qr(tall.double(), mode="r").R)
        rounding = torch.finfo(dtype).eps * tall.shape[1] * values[:, :1]
        parts.append(torch.where(values > rounding, values, 0.0))
    return torch.cat(parts)


def _record_layers(network: nn.Module, inputs: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
    """Return each use of a layer in order: its weight's name, its modules, and its input."""
    layers: list[tuple[str, list[nn.Module], Tensor]] = []
    # What left the last layer so far, and how often it had been written to then: after
    # `out += shortcut` it is the same tensor, but no longer that layer's output.
    left: tuple[Tensor, int] | None = None
    follows = False

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal follows
        follows = (
            left is not None
            and isinstance(module, (*REPLACED_BY_IDENTITY, nn.Identity))
            and args[0] is left[0]
            and args[0]._version == left[1]
        )

    def after(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal left
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            # A copy, because an activation in place may write to it later.
            layers.append((f"{name}.weight" if name else "weight", [module], args[0].clone()))
        elif follows:
            layers[-1][1].append(module)
        else:
            left = None
            return
        left = (output, output._version)

    hooks = []
    for name, module in network.named_modules():
        if not any(module.children()):
            hooks.append(module.register_forward_pre_hook(before))
            hooks.append(module.register_forward_hook(partial(after, name)))
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    return [(name, nn.Sequential(*modules), given) for name, modules, given in layers]
