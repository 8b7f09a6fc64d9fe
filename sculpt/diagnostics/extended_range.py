"""Signals of any magnitude, for counts that float64 cannot hold.

A network can have more paths than float64 can count, and the channels of one layer can lie
further apart than its whole range. So a tensor is a sum of float64 tensors, each with its own
power of two, and a linear operation applies to each of them: f(Σ xₖ·2ᵏ) = Σ f(xₖ)·2ᵏ. Without
negative numbers there is no cancellation, and every element has the precision of float64.
"""

import math
from typing import Self

import torch
from torch import Tensor

from sculpt.diagnostics.signal import Signal

BAND = 512
"""Powers of two between bands; a band's elements lie within 2^±256."""


class ExtendedRange(Signal):
    """A signal without overflow: Σ bands[k]·2^(k·BAND), float64.

    Use it without gradients. `of` wraps a tensor, `log10` reads a number.
    """

    @classmethod
    def joined(cls, terms: dict[int, Tensor]) -> Self:
        """Wrap the sum of terms, moving every element to the band of its magnitude."""
        bands: dict[int, Tensor] = {}
        limit = 2.0 ** (BAND // 2)
        for band, values in terms.items():
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
        return super().joined(bands or {0: torch.zeros_like(values)})

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
