"""Opponents: networks that a study trains beside its candidates, to be beaten by them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sculpt.config.sections import Choice, describe_parameters

NEAR = 0.01
"""Share of a budget by which the size of a dense network may differ from it."""

Control = Literal["shuffled", "erk"]
"""Controls of a candidate: its own mask shuffled within the layers, or a random one (ERK)."""

Kind = Literal[
    "dense", "erk", "random", "shuffled", "gradual_magnitude", "magnitude_after_training"
]
"""`dense` networks are as wide as makes their size the budget. The others are pruned to the budget:
at random by the layer densities of Erdős–Rényi kernels (`erk`) or by the study's own layer budgets
(`random`), by the study's criterion and then shuffled within the layers (`shuffled`), by magnitude
while training (`gradual_magnitude`), or after a first, dense training, to be trained again
(`magnitude_after_training`)."""


class Opponent(Choice):
    """A kind of opponent, with parameters as in the space, set on top of the study's own."""

    name: Kind

    @property
    def label(self) -> str:
        """Name of its trial, for example `dense blocks 2`."""
        return " ".join(filter(None, [self.name, describe_parameters(self.options)]))


def is_near(dense: Mapping[str, Any], candidate: Mapping[str, Any], *, by_macs: bool) -> bool:
    """Tell by what is kept of two finished trials whether a dense network is of the size of a
    candidate's budget, or of its MACs."""
    key, size = ("kept_macs",) * 2 if by_macs else ("kept_parameters", "budget")
    return bool(abs(dense[key] / candidate[size] - 1) <= NEAR)


def each_labelled_once(opponents: Sequence[Opponent]) -> Sequence[Opponent]:
    """Refuse opponents of one label, by a ValueError."""
    labels = [opponent.label for opponent in opponents]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"have each opponent once, but {twice[0]!r} is there twice")
    return opponents
