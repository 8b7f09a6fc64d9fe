"""What may be sampled: values, conditions between them, and what no candidate may exceed."""

from typing import Annotated, Any

from pydantic import ByteSize, Field, model_validator

from sculpt.config.sections import Choice, Scalar, Section


class Range(Section):
    """Numbers from `low` to `high`, both included; whole if both are whole."""

    low: int | float
    high: int | float
    step: Annotated[int | float, Field(gt=0)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low > self.high:
            raise ValueError("have low at most high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("have low > 0 and no step where log is true")
        return self

    @property
    def whole(self) -> bool:
        """Whether only integers are meant."""
        return all(isinstance(x, int) for x in (self.low, self.high, self.step or 0))


Value = Scalar | list[Scalar] | Choice
Dimension = Annotated[list[Value], Field(min_length=1)] | Range


class Constraints(Section):
    """What a candidate's dense network may have at most; checked before anything is trained."""

    max_dense_parameters: Annotated[int, Field(ge=1)] | None = None
    """Under the study's counting rule."""
    max_macs: Annotated[int, Field(ge=1)] | None = None
    """Multiply-accumulates of the dense network for one image."""
    max_memory: ByteSize | None = None
    """Of training, as `sculpt check` estimates it: bytes, or a text such as `2GiB`."""


class Space(Section):
    """What may be sampled: a key of the study, or a bare option of the model, to its values."""

    parameters: Annotated[dict[str, Dimension], Field(min_length=1)]
    """A value may be a list (`blocks: [[1, 2, 3], ...]`, one for each stage) or a whole choice,
    for example `pruning.criterion: [{name: synflow}, ...]`."""
    conditions: dict[str, dict[str, Scalar | list[Scalar]]] = Field(default={})
    """Parameter -> earlier parameters and their values under which alone it is sampled; a whole
    choice goes by its name. Where it is not sampled, the study's own value stays."""
    constraints: Constraints = Constraints()

    @model_validator(mode="after")
    def _check(self) -> "Space":
        order = list(self.parameters)
        for key, dimension in self.parameters.items():
            labels = [] if isinstance(dimension, Range) else [label(value) for value in dimension]
            if len(set(map(str, labels))) < len(labels):
                raise ValueError(f"have each value of {key} once")
        for key, parents in self.conditions.items():
            if key not in order:
                raise ValueError(f"have conditions on its parameters only, not on {key!r}")
            for parent, wanted in parents.items():
                if parent not in order[: order.index(key)]:
                    raise ValueError(
                        f"have {key} depend on parameters that come before it, not on {parent!r}"
                    )
                for value in wanted if isinstance(wanted, list) else [wanted]:
                    if not self._may_be(parent, value):
                        raise ValueError(
                            f"have {key} depend on values that {parent} can take, not on {value!r}"
                        )
        return self

    def values(self, key: str) -> dict[Scalar, Any]:
        """Return the listed values of a parameter by what trials call them; none of a range.

        Samplers and storages know plain values only, so others go by their label.
        """
        dimension = self.parameters[key]
        if isinstance(dimension, Range):
            return {}
        return {
            label(value): value.model_dump() if isinstance(value, Choice) else value
            for value in dimension
        }

    def is_active(self, key: str, params: dict[str, Any]) -> bool:
        """Return whether a parameter is sampled, given the values of those before it."""
        for parent, wanted in self.conditions.get(key, {}).items():
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if parent not in params:
                return False
            names = {params[parent], self._name(parent, params[parent])}
            if not any(_same(name, value) for name in names for value in allowed):
                return False
        return True

    def _name(self, key: str, value: Any) -> Any:
        """Return the name of a whole choice that is known by its label; else the value."""
        listed = self.values(key).get(value)
        return listed["name"] if isinstance(listed, dict) else value

    def _may_be(self, key: str, value: Scalar) -> bool:
        dimension = self.parameters[key]
        if isinstance(dimension, Range):
            return not isinstance(value, str) and dimension.low <= value <= dimension.high
        return any(
            _same(known, value) or _same(self._name(key, known), value)
            for known in self.values(key)
        )


def label(value: Value) -> Scalar:
    """Return what trials call a value."""
    if isinstance(value, Choice):
        return value.label
    return str(value) if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are one; Python takes True for 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
