"""Sampling: the space, samplers, feasible configurations, and early stopping."""
