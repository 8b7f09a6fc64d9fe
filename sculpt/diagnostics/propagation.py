"""Signal propagation: singular values of a network's input-output Jacobian.

Lee et al. 2020, §4: a network propagates signals faithfully if they are near 1 (dynamical
isometry). Derivatives are taken on a copy in inference mode.
"""

import contextlib
import math

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import logits_of
from sculpt.diagnostics.cost import measure_cost
from sculpt.errors import InputError, NumericsError
from sculpt.graph.copies import copy_network
from sculpt.record import JacobianSpectrum

ELEMENTS_AT_ONCE = 2**24
"""Limit of a chunk of images: 128 MiB of activations and Jacobians."""

IMAGES_AT_ONCE = 256
"""Larger chunks leave the caches and are slower."""

LARGE = 2**21
"""Activations for one image; with more, float64 takes a CPU many seconds (ResNet50, 64 pixels)."""
ENOUGH = 1e-4
"""Smallest singular value, of an image's largest, of which float32 has three digits."""


def jacobian_singular_values(
    model: nn.Module, inputs: Tensor, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Compute the singular values of each image's Jacobian ∂ output / ∂ input.

    By a QR decomposition and an SVD of its small factor. The eigenvalues of J Jᵀ would be three
    times as fast but square the condition, which halves the digits of the smallest values.

    Args:
        model: Maps (N, ...) to logits (N, classes), each image by itself in inference mode; it is
            not changed.
        inputs: Normalised images (N, ...), where the model is.
        dtype: Precision of the derivatives. float32 leaves all singular values with 7 digits of
            the largest. By default float64, but for networks of more than 2^21 activations, which
            take float32 unless a singular value is below 1e-4 of the image's largest.

    Returns:
        float64 (N, min(classes, pixels)), largest first. Values below ε · max(classes, pixels) of
        the image's largest, as for a matrix's rank, are 0.

    Raises:
        InputError: there are no images, or the model returns something else.
        NumericsError: a derivative is not finite.
    """
    if len(inputs) == 0:
        raise InputError("there must be images to take the Jacobian at, but got none")
    activations = measure_cost(model, tuple(inputs.shape[1:])).activations
    if dtype is None and activations > LARGE:
        with contextlib.suppress(NumericsError):
            values = _singular_values(model, inputs, torch.float32, activations)
            if (values[:, -1] >= ENOUGH * values[:, 0]).all():
                return values
    try:
        return _singular_values(model, inputs, dtype or torch.float64, activations)
    except RuntimeError as error:
        own = next(model.parameters()).dtype
        if dtype is not None or own == torch.float64 or "type" not in str(error):
            raise
        # Its forward pass names a type (`x.float()`), and so takes no other.
        return _singular_values(model, inputs, own, activations)


def _singular_values(
    model: nn.Module, inputs: Tensor, dtype: torch.dtype, activations: int
) -> Tensor:
    """Compute the singular values in one precision; see `jacobian_singular_values`."""
    network = copy_network(model).to(dtype).to(memory_format=torch.contiguous_format)
    network.eval().requires_grad_(False)
    outputs = logits_of(network(inputs[:1].to(dtype))).numel()
    elements = activations + outputs * inputs[0].numel()
    at_once = max(1, min(IMAGES_AT_ONCE, ELEMENTS_AT_ONCE // elements))
    parts = []
    for batch in inputs.split(at_once):
        matrices = _jacobians(network, batch.detach().to(dtype).contiguous())
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


def _jacobians(network: nn.Module, images: Tensor) -> Tensor:
    """Compute each image's Jacobian, (N, outputs, inputs), by a backward pass for each output.

    Images do not depend on each other, so one pass serves all of them.
    """
    images = images.requires_grad_()
    with torch.enable_grad():
        # A copy, because a network may begin in place; and not constant, as some networks are.
        outputs = logits_of(network(images.clone())).flatten(1) + 0 * images.flatten(1)[:, :1]
        rows = [
            torch.autograd.grad(column.sum(), images, retain_graph=True)[0].flatten(1)
            for column in outputs.unbind(1)
        ]
    return torch.stack(rows, 1)


def summarize_jacobian(values: Tensor) -> JacobianSpectrum:
    """Pool singular values (N, values of one image) over the images.

    Raises:
        InputError: there are no values.
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
