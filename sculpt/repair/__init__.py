"""Repair: dynamical isometry of each layer, restored under its mask.

Plain modules and masks in, the same weights changed in place; nothing here knows of studies.
"""
