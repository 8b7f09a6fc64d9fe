"""View of a network that all rooms above share: its trace, the shapes in it, and its channels."""
