"""Building blocks of the schema of a study file."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, le=2**53)]
"""Up to what every program that reads JSON tells apart."""
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Pixels = Annotated[int, Field(ge=0, le=8192)]
Scalar = bool | int | float | str

Params = dict[str, Any]
"""Sampled values of the active parameters by their keys in the space, for example `{"widening": 2}`
(bare keys are options of the model). A whole choice or a list may be replaced by its label."""
Overrides = dict[str, Any]
"""Values by dotted key, set in a study file before it is checked, as by `--set`; for example
`{"search.trials": 4}`."""


class Section(BaseModel):
    """A part of a study file. Unknown keys, silent conversions and infinite numbers are faults."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Choice(BaseModel):
    """A registered function or class by name, with its options beside the name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The given options; the others take the registered defaults."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The choice as one short text, for example `synflow(rounds=10)`."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


def describe_parameters(params: Params) -> str:
    """Format parameters as one short text."""
    # The number of an element says nothing without the name of its list.
    names = (re.sub(r".*\.(?=[^.]*[^.\d])", "", key) for key in params)
    return ", ".join(f"{name} {value}" for name, value in zip(names, params.values(), strict=True))
