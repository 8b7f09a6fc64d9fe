"""Training of one masked network: the loop, its schedule, and evaluation."""
