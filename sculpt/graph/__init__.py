"""One view of a network for compaction and export: its trace, and channels on their way."""
