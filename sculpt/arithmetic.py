"""The arithmetic of float32 on a device, of convolutions on the CPU, and what differs by it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

VECTOR = 16
"""Floats that oneDNN's convolutions take at once, at most."""


def relative_difference(expected: Tensor, found: Tensor, like: Tensor | None = None) -> float:
    """Return the largest difference of two results, (N, ...), as a share of the largest value.

    What is equal differs by nothing, infinity too; NaN differs by infinity. Values that are the
    same for every input, such as masked logits of -1e9, are no measure: nothing would differ beside
    them.

    Args:
        expected, found: Results for the same inputs.
        like: What the largest value is taken of; by default `expected`.
    """
    expected, found = _real(expected), _real(found)
    if expected.shape != found.shape:
        return math.inf
    if not (apart := expected != found).any():
        return 0.0
    largest = float((expected.double() - found.double())[apart].abs().max())
    scale = float(magnitude(expected if like is None else _real(like)))
    return largest / scale if largest == largest else math.inf


def magnitude(values: Tensor) -> Tensor:
    """Return the largest finite value of a result, (N, ...), of those that inputs decide."""
    tiny = torch.finfo(values.dtype if values.is_floating_point() else torch.float32).tiny
    values = values.double().reshape(len(values) if values.dim() else 1, -1)
    varies = (values != values[:1]).any(0, keepdim=True).expand_as(values)
    values = values[varies] if varies.any() else values.flatten()
    sizes = values[values.isfinite()].abs()
    return sizes.max().clamp(min=tiny) if len(sizes) else values.new_tensor(tiny)


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values.resolve_conj()) if values.is_complex() else values


@contextmanager
def drawn_by(seed: int) -> Iterator[None]:
    """Let what layers draw by themselves, such as dropout, follow from a seed, then restore."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """Compute CUDA's float32 products and convolutions in `precision`, then restore.

    Without this, torch computes float32 convolutions in tf32 and matrix products in float32.
    """
    if device.type != "cuda":
        yield
        return
    # By `allow_tf32`, of which torch makes this by itself, it could not be read back where anything
    # in the process has set the newer `fp32_precision`: torch raises at a mixture of the two.
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    settings: list[Any] = [cuda.matmul, cudnn.conv, cudnn.rnn]  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


@contextmanager
def sound_convolutions(model: nn.Module) -> Iterator[None]:
    """Train a network on the CPU without oneDNN, if oneDNN would write past its memory.

    Its gradient of a 1×1 convolution with a stride, of fewer input channels than a vector has, in
    channels-last memory, is wrong or ends the process (uxlfoundation/oneDNN issue 6035, open).
    Such are the shortcuts of narrow networks, and of compacted ones.
    """
    unsound = any(
        isinstance(module, nn.Conv2d)
        and set(module.kernel_size) == {1}
        and max(module.stride) > 1
        and module.in_channels // module.groups < VECTOR
        for module in model.modules()
    )
    before = bool(torch.backends.mkldnn.enabled)
    # Alone: `flags`, the context of torch, sets what only other devices know, too, and warns of it.
    torch.backends.mkldnn.enabled = before and not unsound  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before  # type: ignore[assignment]
