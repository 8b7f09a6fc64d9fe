"""What every part of a study file is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Scalar = bool | int | float | str


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
