"""Layer budgets: the weights that each layer keeps, for criteria that fix them first."""

import math
from collections.abc import Mapping, Sequence

from sculpt.errors import BudgetError


def proportional_counts(sizes: Mapping[str, int], kept: int) -> dict[str, int]:
    """Share a budget among layers in proportion to their sizes: all have one density.

    The counts add up to `kept`; fractions are rounded by largest remainder, ties to the first.
    """
    total = max(1, sum(sizes.values()))
    counts = {name: size * kept // total for name, size in sizes.items()}
    left = kept - sum(counts.values())
    for name in sorted(sizes, key=lambda name: -(sizes[name] * kept % total))[:left]:
        counts[name] += 1
    return counts


def erk_counts(shapes: Mapping[str, Sequence[int]], kept: int) -> dict[str, int]:
    """Share a budget among the layers by the Erdős–Rényi-kernel rule (Evci et al. 2020, §3).

    A convolution's density is ε · (c_in + c_out + kh + kw) / (c_in · c_out · kh · kw), a linear
    layer's ε · (n_in + n_out) / (n_in · n_out): both are ε times the sum over the product of the
    shape. A layer that would be denser than 1 is full, and the others share the rest.

    Args:
        shapes: Shapes of the prunable parameters, by name. One with fewer than two dimensions is a
            bias and keeps nothing, unless every weight is kept: then the biases share the rest.
        kept: The sum of the counts.

    Returns:
        Counts by name, from 0 to the parameter's size. They add up to `kept` exactly: fractions
        are rounded by largest remainder, ties going to the parameter that comes first.

    Raises:
        BudgetError: `kept` is negative, or exceeds the number of parameters.
    """
    weights = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    biases = {name: shape for name, shape in shapes.items() if len(shape) <= 1}
    total = sum(math.prod(shape) for shape in shapes.values())
    if not 0 <= kept <= total:
        raise BudgetError(
            f"the number of kept weights must be from 0 to {total}, but got {kept}; choose "
            "another budget or another network"
        )
    for_weights = min(kept, sum(math.prod(shape) for shape in weights.values()))
    counts = _shared(weights, for_weights) | _shared(biases, kept - for_weights)
    return {name: counts[name] for name in shapes}


def _shared(shapes: Mapping[str, Sequence[int]], kept: int) -> dict[str, int]:
    """Share `kept` in proportion to the sums of the shapes, in exact integers."""
    counts: dict[str, int] = {}
    rest, sparse = kept, dict(shapes)
    while sparse:
        parts = sum(sum(shape) for shape in sparse.values())
        # A full layer stays full: its excess only makes the others denser.
        full = [
            name for name, shape in sparse.items() if rest * sum(shape) >= math.prod(shape) * parts
        ]
        if not full:
            break
        for name in full:
            counts[name] = math.prod(sparse.pop(name))
        rest = kept - sum(counts.values())
    return counts | proportional_counts({n: sum(shape) for n, shape in sparse.items()}, rest)
