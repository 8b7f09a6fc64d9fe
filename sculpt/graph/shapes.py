"""Shapes on the meta device, without what PyTorch imports to find them.

PyTorch's own rules for the meta device are written in Python, and the first that is asked for
imports its compiler and SymPy, which takes longer than PyTorch itself. The operations that networks
are mostly made of have rules here; all others, and all that would be refused, are PyTorch's to do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Found = Tensor | tuple[Tensor, ...]


class QuickShapes(TorchDispatchMode):
    """In this context operations on the meta device find the shapes of their results by a rule."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # if it should, calls go by way of PyTorch's compiler
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        rule = _RULES.get(func)
        tensors = [value for value in args if isinstance(value, Tensor)]
        if rule and all(tensor.is_meta for tensor in tensors):
            found = rule(func, *args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))


def _one_by_one(func: Any, values: Tensor, *rest: Any, **options: Any) -> Found:
    """Each number becomes another."""
    return values.new_empty(values.shape)


def _broadcast(func: Any, one: Tensor, other: Any, **options: Any) -> Found | None:
    """Numbers of two tensors, or a tensor's and one number, become one."""
    try:
        shape = np.broadcast_shapes(one.shape, getattr(other, "shape", ()))
    except ValueError:
        return None
    return one.new_empty(shape)


def _broadcast_in_place(func: Any, one: Tensor, other: Any, **options: Any) -> Found | None:
    found = _broadcast(func, one, other)
    return one if isinstance(found, Tensor) and found.shape == one.shape else None


def _batch_norm(func: Any, values: Tensor, weight: Tensor | None, *rest: Any) -> Found | None:
    """The result, and the batch's own statistics, of which there are none in evaluation."""
    bias, mean, _, training, *_ = rest
    each = {tensor.numel() for tensor in (weight, bias, mean) if tensor is not None}
    if training or each - {values.shape[1]}:
        return None
    return values.new_empty(values.shape), values.new_empty(0), values.new_empty(0)


def _product(func: Any, one: Tensor, other: Tensor) -> Found | None:
    """(n, k) and (k, m) to (n, m)."""
    return one.new_empty(len(one), other.shape[1]) if one.shape[1] == len(other) else None


def _biased_product(
    func: Any, bias: Tensor, one: Tensor, other: Tensor, **options: Any
) -> Found | None:
    fits = bias.shape in ((other.shape[1],), ())
    return _product(func, one, other) if fits else None


def _mean(
    func: Any, values: Tensor, over: list[int] | None, keep: bool = False, **options: Any
) -> Found | None:
    """The mean over some dimensions, which are kept with a length of 1, or are not."""
    if not over or not values.is_floating_point() or options:
        return None
    gone = {dimension % values.dim() for dimension in over}
    lengths = [(i in gone, length) for i, length in enumerate(values.shape)]
    return values.new_empty([1 if out else n for out, n in lengths if keep or not out])


def _of_images(func: Any, images: Tensor, *rest: Any, **options: Any) -> Found | None:
    """The operation itself, done to no image at all: only shapes are found, by what computes."""
    if images.dim() != 4:
        return None
    here = [torch.empty(x.shape, dtype=x.dtype) if isinstance(x, Tensor) else x for x in rest]
    nothing = torch.empty(0, *images.shape[1:], dtype=images.dtype)
    found = func(nothing, *here, **options)
    results = [found] if isinstance(found, Tensor) else found
    shapes = [
        images.new_empty(len(images), *result.shape[1:], dtype=result.dtype) for result in results
    ]
    return shapes[0] if isinstance(found, Tensor) else tuple(shapes)


_aten = torch.ops.aten
_RULES: dict[Any, Callable[..., Found | None]] = {
    **dict.fromkeys(
        (
            *(_aten.relu.default, _aten.leaky_relu.default, _aten.elu.default, _aten.tanh.default),
            *(_aten.gelu.default, _aten.silu.default, _aten.sigmoid.default),
        ),
        _one_by_one,
    ),
    **dict.fromkeys((_aten.add.Tensor, _aten.mul.Tensor), _broadcast),
    **dict.fromkeys((_aten.add_.Tensor, _aten.mul_.Tensor), _broadcast_in_place),
    _aten.native_batch_norm.default: _batch_norm,
    _aten.mm.default: _product,
    _aten.addmm.default: _biased_product,
    _aten.mean.dim: _mean,
    **dict.fromkeys(
        (
            *(_aten.convolution.default, _aten.avg_pool2d.default),
            _aten.max_pool2d_with_indices.default,
        ),
        _of_images,
    ),
}
