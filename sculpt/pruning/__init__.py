"""Pruning at initialisation: scores, masks, budgets.

Plain tensors and modules in, tensors out; nothing here knows of studies or files. Masks
and scores are dictionaries keyed by parameter name, as in `model.named_parameters()`.
"""
