"""Layer budgets: the weights that each layer keeps, where these are fixed first."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from sculpt.errors import BudgetError

LayerBudgets = Literal["erk", "balanced"]
"""`npb` is none of its own: its layers keep what `erk_counts` says."""


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


def layer_counts(
    rule: LayerBudgets, shapes: Mapping[str, Sequence[int]], kept: int, most: Mapping[str, int]
) -> dict[str, int]:
    """Share a budget among layers by a rule; see `erk_counts` and `balanced_counts`."""
    return (erk_counts if rule == "erk" else balanced_counts)(shapes, kept, most)


def balanced_counts(
    shapes: Mapping[str, Sequence[int]], kept: int, most: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Share a budget so that every layer keeps the same number of weights.

    The balanced ratios of Gadhikar, Mukherjee and Burkholz 2023 (*Why Random Pruning Is All We
    Need to Start Sparse*, ICML): small layers are dense and large ones sparse. A layer with fewer
    weights than that is full, and the others share the rest.

    Args and raises as `erk_counts`, for biases, too.

    Returns:
        Counts by name that add up to `kept` exactly; they differ by at most one, except of full
        layers, and what is left over by division goes to the first.
    """
    return _counts(shapes, kept, most, lambda shape: 1)


def erk_counts(
    shapes: Mapping[str, Sequence[int]], kept: int, most: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Share a budget among the layers by the Erdős–Rényi-kernel rule (Evci et al. 2020, §3).

    A convolution's density is ε · (c_in + c_out + kh + kw) / (c_in · c_out · kh · kw), a linear
    layer's ε · (n_in + n_out) / (n_in · n_out): both are ε times the sum over the product of the
    shape. A layer that would be denser than 1 is full, and the others share the rest.

    Args:
        shapes: Shapes of the prunable parameters, by name. One with fewer than two dimensions is a
            bias and keeps nothing, unless every weight is kept: then the biases share the rest.
        kept: The sum of the counts.
        most: Weights of each parameter that may be kept; by default all.

    Returns:
        Counts by name, from 0 to the most that may be kept. They add up to `kept` exactly:
        fractions are rounded by largest remainder, ties going to the parameter that comes first.

    Raises:
        BudgetError: `kept` is negative, or exceeds the number that may be kept.
    """
    return _counts(shapes, kept, most, sum)


def _counts(
    shapes: Mapping[str, Sequence[int]],
    kept: int,
    most: Mapping[str, int] | None,
    part: Callable[[Sequence[int]], int],
) -> dict[str, int]:
    """Share a budget among weights in parts that their shapes decide, then among biases."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()} if most is None else most
    weights = {name: part(shape) for name, shape in shapes.items() if len(shape) > 1}
    biases = {name: part(shape) for name, shape in shapes.items() if len(shape) <= 1}
    total = sum(sizes[name] for name in shapes)
    if not 0 <= kept <= total:
        raise BudgetError(
            f"the number of kept weights must be from 0 to {total}, but got {kept}; choose "
            "another budget or another network"
        )
    for_weights = min(kept, sum(sizes[name] for name in weights))
    counts = _shared(weights, sizes, for_weights) | _shared(biases, sizes, kept - for_weights)
    return {name: counts[name] for name in shapes}


def _shared(parts: Mapping[str, int], sizes: Mapping[str, int], kept: int) -> dict[str, int]:
    """Share `kept` in proportion to the parts, up to the sizes, in exact integers."""
    counts: dict[str, int] = {}
    rest, sparse = kept, dict(parts)
    while sparse:
        total = sum(sparse.values())
        # A full layer stays full: its excess only makes the others denser.
        full = [name for name, part in sparse.items() if rest * part >= sizes[name] * total]
        if not full:
            break
        for name in full:
            counts[name] = sizes[name]
            del sparse[name]
        rest = kept - sum(counts.values())
    return counts | proportional_counts(sparse, rest)
