"""The files of a study: records, networks and checkpoints, here or on a network."""
