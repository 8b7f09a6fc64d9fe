"""Diagnostics of a network: signal propagation, topology, cost.

Modules and masks in, numbers out; modules and masks are not changed.
"""
