"""What is tried next: the space, samplers, what is feasible, and what is stopped early."""
