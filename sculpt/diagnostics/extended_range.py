"""Non-negative tensors of any magnitude, for counts that float64 cannot hold.

A network can have more paths than float64 can count, and the channels of one layer can lie
further apart than its whole range. So a tensor is a sum of float64 tensors, each with its own
power of two, and a linear operation applies to each of them: f(Σ xₖ·2ᵏ) = Σ f(xₖ)·2ᵏ. Without
negative numbers there is no cancellation, and every element has the precision of float64.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from sculpt.errors import InputError

BAND = 512
"""Powers of two between bands; a band's elements lie within 2^±256."""

ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__", "cat", "concat", "stack"}
"""Operations on several of these tensors; a product of two would not be linear."""


class ExtendedRange(Tensor):
    """A non-negative tensor that passes through linear operations without overflow.

    Use it without gradients. `of` wraps a tensor, `log10` reads a number.
    """

    bands: dict[int, Tensor]
    """The terms of Σ bands[k]·2^(k·BAND), float64 and of one shape; at least one."""

    @staticmethod
    def of(values: Tensor) -> "ExtendedRange":
        """Wrap a copy of a non-negative float64 tensor."""
        return _wrap(_sort_into_bands([(0, values.clone())]))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Apply a function to each band, and join the results."""
        operands, structure = tree_flatten((args, kwargs or {}))
        wrapped = [operand for operand in operands if isinstance(operand, ExtendedRange)]
        if len(wrapped) > 1 and func.__name__ not in ADDITIONS:
            raise InputError(
                "paths are counted through linear operations, but the forward pass applies "
                f"{func.__name__!r} to several signals; leave that part of the network out"
            )
        results: dict[int, list[Any]] = {}
        with torch._C.DisableTorchFunctionSubclass():
            for band in sorted({band for tensor in wrapped for band in tensor.bands}):
                given, named = tree_unflatten([_term(o, band) for o in operands], structure)
                results[band], layout = tree_flatten(func(*given, **named))
            # One leaf for each tensor, shape, number, ... in the result.
            leaves = [
                _wrap(_sort_into_bands(list(zip(results, leaf, strict=True))))
                if isinstance(leaf[0], Tensor)
                else leaf[0]
                for leaf in zip(*results.values(), strict=True)
            ]
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):  # add_, relu_
            args[0].bands = leaves[0].bands
            return args[0]
        return tree_unflatten(leaves, layout)

    def log10(self) -> float | None:  # type: ignore[override]
        """Compute log10 of the only element; None for zero."""
        top = max(self.bands)
        with torch._C.DisableTorchFunctionSubclass():
            # Lower bands are zero, or the last digits of the top one.
            scaled = math.fsum(
                math.ldexp(float(value), max(BAND * (band - top), -2000))
                for band, value in self.bands.items()
            )
        return math.log10(scaled) + BAND * top * math.log10(2) if scaled else None


def _term(operand: Any, band: int) -> Any:
    """Return the part of an operand in one band."""
    if not isinstance(operand, ExtendedRange):
        return operand
    some = next(iter(operand.bands.values()))
    return operand.bands[band] if band in operand.bands else torch.zeros_like(some)


def _sort_into_bands(terms: list[tuple[int, Tensor]]) -> dict[int, Tensor]:
    """Sum terms, moving every element to the band of its magnitude."""
    bands: dict[int, Tensor] = {}
    limit = 2.0 ** (BAND // 2)
    for band, values in terms:
        high, low = values >= limit, (values > 0) & (values < 1 / limit)
        parts = {band: values}
        if high.any() or low.any():
            parts = {
                band: values.masked_fill(high | low, 0.0),
                band + 1: torch.where(high, values, 0.0) * 2.0**-BAND,
                band - 1: torch.where(low, values, 0.0) * 2.0**BAND,
            }
        for key, part in parts.items():
            if part.any():
                bands[key] = bands[key] + part if key in bands else part
    return bands or {0: torch.zeros_like(terms[0][1])}


def _wrap(bands: dict[int, Tensor]) -> ExtendedRange:
    # Its own data is one of the bands, and stands only for shape, device and type.
    tensor = next(iter(bands.values())).as_subclass(ExtendedRange)
    tensor.bands = bands
    return tensor
