"""View of a network that compaction and export share: its trace, and its channels."""
