"""Diagnostics of a network at any point of its life: signal propagation, topology, cost.

Modules and masks in, numbers out; nothing is changed.
"""
