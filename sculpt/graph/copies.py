"""Copies of a network to look into, and its plain forward pass where it was compiled."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def copy_network(model: nn.Module, memo: dict[int, Any] | None = None) -> Any:
    """Copy a network, and what its modules keep of a forward pass, such as attention maps.

    `copy.deepcopy` refuses tensors that autograd has computed; here they are copied without that.

    Args:
        model: Not changed.
        memo: Copies of tensors, by their identity: these are taken in the place of such tensors.
    """
    known = dict(memo or {})
    with suppress(RuntimeError):
        return copy.deepcopy(model, dict(known))
    for module in model.modules():
        for leaf in tree_leaves(list(vars(module).values())):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                known.setdefault(id(leaf), leaf.detach().clone())
    return copy.deepcopy(model, known)


def cast(network: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """Move a network to a device, in place, its floats in one precision, complex ones, too."""
    of_complex = torch.complex128 if dtype == torch.float64 else torch.complex64

    def moved(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device, of_complex if tensor.is_complex() else kind)

    return network._apply(moved)


@contextmanager
def run_eagerly(model: nn.Module) -> Iterator[None]:
    """Let a network that was compiled run as it is written, in a context.

    A compiled forward pass can be derived once only, and takes tensors alone.
    """
    compiled = any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield
