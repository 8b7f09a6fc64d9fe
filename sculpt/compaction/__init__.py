"""Compaction before training: the same function and trajectory, without what no path uses."""

from sculpt.compaction.choice import compact_where_it_pays
from sculpt.compaction.compact import Compaction, compact, largest_difference

__all__ = ["Compaction", "compact", "compact_where_it_pays", "largest_difference"]
