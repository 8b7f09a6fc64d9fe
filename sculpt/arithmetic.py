"""The arithmetic of float32 on a device, and of convolutions on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

VECTOR = 16
"""Floats that oneDNN's convolutions take at once, at most."""


@contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """Compute CUDA's float32 products and convolutions in `precision`, then restore.

    Without this, torch computes float32 convolutions in tf32 and matrix products in float32.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    wanted = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


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
