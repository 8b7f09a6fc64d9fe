"""Activations of NumPy arrays, as PyTorch has them."""

import numpy as np

from sculpt.export.program import Activation, Array

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def activate(operation: Activation, values: Array) -> Array:
    """Return an activation's values."""
    match operation.function:
        case "relu":
            return np.maximum(values, 0.0)
        case "relu6":
            return np.clip(values, 0.0, 6.0)
        case "leaky_relu":
            return np.where(values > 0, values, operation.slope * values)
        case "tanh":
            return np.tanh(values)
        case "selu":
            below = SELU_ALPHA * np.expm1(np.minimum(values, 0.0))
            return SELU_SCALE * np.where(values > 0, values, below)
