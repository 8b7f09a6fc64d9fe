"""Compaction before training: the same function and trajectory, without what no path uses."""

from sculpt.compaction.compaction import (
    Compaction,
    compact_where_it_pays,
    largest_difference,
    narrow_for_training,
)

__all__ = ["Compaction", "compact_where_it_pays", "largest_difference", "narrow_for_training"]
