"""Budgets of a study: parameters, a share of them, or multiply-accumulates; and lists of them."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from sculpt.config.sections import Fraction, Section
from sculpt.documents import lookup


class Sparsity(Section):
    """A budget as the fraction removed of a candidate's own dense network."""

    sparsity: Fraction


Parameters = Annotated[int, Field(ge=1, le=10**12)]


class Macs(Section):
    """A budget of work: multiply-accumulates on kept weights for one input."""

    macs: Annotated[int, Field(ge=1, le=10**15)] | Literal["base"]
    """Met from below, as closely as single weights allow; `base` is what the base takes."""
    parameters: Parameters | Literal["base"] | None = None
    """Most parameters beside; by default as many as the MACs allow."""


def _kind_of_budget(given: Any) -> str:
    """Name the one kind of budget whose faults are told."""
    if isinstance(given, Macs) or (isinstance(given, dict) and given.keys() & Macs.model_fields):
        return "Macs"
    return "Sparsity" if isinstance(given, Sparsity | dict) else "int"


Budget = Annotated[
    Annotated[Parameters | Literal["base"], Tag("int")]
    | Annotated[Sparsity, Tag("Sparsity")]
    | Annotated[Macs, Tag("Macs")],
    Discriminator(_kind_of_budget),
]


def sample_budgets(document: Any) -> Any:
    """Turn a list of budgets in a study document into a parameter of the space.

    Any other document is returned unchanged, and so is one whose space already samples the budget
    or is malformed, which the schema refuses.
    """
    budgets = document.get("budget") if isinstance(document, dict) else None
    parameters = lookup(document, "space.parameters") if isinstance(budgets, list) else None
    if not isinstance(parameters, dict) or "budget" in parameters:
        return document
    space = document["space"] | {"parameters": {"budget": budgets} | parameters}
    return document | {"budget": "base", "space": space}
