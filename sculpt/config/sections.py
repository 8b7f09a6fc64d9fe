"""What every part of a study file is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Scalar = bool | int | float | str

Params = dict[str, Any]
"""Sampled values, for example `{"widening": 2}`: of each parameter of the space that is active, by
its key there (bare keys are options of the model). A whole choice or a list may stand there itself
or by its label."""
Overrides = dict[str, Any]
"""Values that are set in a study file before it is checked, by dotted key, as `--set` gives them,
for example `{"search.trials": 4}`."""


class Section(BaseModel):
    """A part of a study file. Unknown keys and silent conversions are faults."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Choice(BaseModel):
    """A registered thing by name, with its own options beside the name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options given; those left out take the defaults of the registered thing."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The choice as one short text, for example `synflow(rounds=10)`."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name
