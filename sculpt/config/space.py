"""The search space: values, conditions between parameters, and constraints on candidates."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Annotated, Any

from pydantic import ByteSize, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from sculpt.config.sections import Choice, Params, Scalar, Section

Number = Annotated[int | float, Field(ge=-1e15, le=1e15)]
"""Whole ones up to here are exact as floats, too."""
MOST_STEPS = 10**9


class Range(Section):
    """Numbers from `low` to `high`, both included; whole if both are whole."""

    low: Number
    high: Number
    step: Annotated[int | float, Field(gt=0, le=1e15)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low > self.high:
            raise ValueError("have low at most high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("have low > 0 and no step where log is true")
        if self.step and (self.high - self.low) / self.step > MOST_STEPS:
            raise ValueError(f"have at most {MOST_STEPS} steps")
        return self

    @property
    def whole(self) -> bool:
        """Whether the range has integers only."""
        return all(isinstance(x, int) for x in (self.low, self.high, self.step or 0))

    @property
    def count(self) -> int | None:
        """Number of values; None if infinite."""
        if self.low == self.high:
            return 1
        if not self.whole and self.step is None:
            return None
        width = Decimal(str(self.high)) - Decimal(str(self.low))
        return int(width // Decimal(str(self.step or 1))) + 1

    def at(self, index: int) -> int | float:
        """Return the value at an index, as written by people: 0.3, not 0.30000000000000004."""
        value = Decimal(str(self.low)) + index * Decimal(str(self.step or 1))
        return int(value) if self.whole else float(value)

    def holds(self, value: Any) -> bool:
        """Tell whether a value is in the range."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        return self.count is None or _same(value, self.at(self.place(value)))

    def place(self, value: float) -> int:
        """Find the index of the number nearest to a value."""
        return round((value - self.low) / (self.step or 1))


Value = Scalar | list[Scalar] | Choice
Dimension = Annotated[list[Value], Field(min_length=1)] | Range
Wanted = Scalar | Annotated[list[Scalar], Field(min_length=1)]


class Constraints(Section):
    """Limits on a candidate's dense network, checked before training."""

    max_dense_parameters: Annotated[int, Field(ge=1, le=10**18)] | None = None
    """Under the study's counting rule."""
    max_macs: Annotated[int, Field(ge=1, le=10**18)] | None = None
    """Multiply-accumulates of the dense network for one image."""
    max_memory: Annotated[ByteSize, Field(ge=1, le=2**60)] | None = None
    """Memory of training as estimated by `sculpt check`: bytes, or a text such as `2GiB`."""


class Space(Section):
    """Values of the sampled parameters, by a key of the study or a bare option of the model."""

    parameters: Annotated[dict[str, Dimension], Field(min_length=1)]
    """A value may be a list (`blocks: [[1, 2, 3], ...]`, one for each stage) or a whole choice, for
    example `pruning.criterion: [{name: synflow}, ...]`. The key of an element of a list in the
    study is its number: `blocks.0`."""
    conditions: dict[str, dict[str, Wanted]] = Field(default={})
    """Parameter -> earlier parameters and the values that they must have for it to be sampled; a
    whole choice goes by its name, a list by its text (`"[1, 2, 3]"`). Otherwise the study's own
    value stays."""
    constraints: Constraints = Constraints()

    @model_validator(mode="after")
    def _check(self) -> "Space":
        faults = [*self._value_faults(), *self._condition_faults()]
        if faults:
            raise ValidationError.from_exception_data("space", faults)
        return self

    def values(self, key: str) -> dict[Scalar, Any]:
        """Return the listed values of a parameter by their labels in trials; none of a range.

        Samplers and storages know plain values only, so others go by a label.
        """
        dimension = self.parameters[key]
        if isinstance(dimension, Range):
            return {}
        # Copies, because they become part of other studies.
        return {
            label(value): value.model_dump() if isinstance(value, Choice) else copy.copy(value)
            for value in dimension
        }

    def holds(self, key: str, value: Any) -> bool:
        """Tell whether a parameter can take a value, given itself or by its label."""
        dimension = self.parameters[key]
        if isinstance(dimension, Range):
            return dimension.holds(value)
        return any(_same(label(known), label(value)) for known in dimension)

    def wanted(self, key: str) -> dict[str, list[Scalar]]:
        """Return the conditions of a parameter: its parents and the values they must have."""
        conditions = self.conditions.get(key, {})
        return {
            parent: wanted if isinstance(wanted, list) else [wanted]
            for parent, wanted in conditions.items()
        }

    def admits(self, key: str, parent: str, value: Any) -> bool:
        """Tell whether a parent's value lets a parameter be sampled."""
        called = label(value)
        names = [called, self._name(parent, called)]
        return any(_same(name, one) for name in names for one in self.wanted(key)[parent])

    def is_active(self, key: str, params: Params) -> bool:
        """Tell whether a parameter is sampled, given the values of earlier ones."""
        return all(
            parent in params and self.admits(key, parent, params[parent])
            for parent in self.conditions.get(key, {})
        )

    def combinations(
        self, keys: Iterable[str], values: Callable[[str], Iterable[Any]]
    ) -> Iterator[Params]:
        """Yield every combination of values once, without inactive parameters.

        Keys are in the order of the space and include their parents; the last one varies fastest.
        """
        order = list(keys)

        def extend(params: Params, place: int) -> Iterator[Params]:
            if place == len(order):
                yield params
            elif not self.is_active(order[place], params):
                yield from extend(params, place + 1)
            else:
                for value in values(order[place]):
                    yield from extend(params | {order[place]: value}, place + 1)

        return extend({}, 0)

    def _name(self, key: str, called: Scalar) -> Scalar:
        """Return the name of a whole choice by its label; else the value."""
        dimension = self.parameters[key]
        for value in [] if isinstance(dimension, Range) else dimension:
            if isinstance(value, Choice) and value.label == called:
                return value.name
        return called

    def _value_faults(self) -> Iterator[InitErrorDetails]:
        for key, dimension in self.parameters.items():
            labels = [] if isinstance(dimension, Range) else [label(value) for value in dimension]
            # 1 and true are equal in Python, 1 and "1" in a table.
            if len(labels) > min(len(set(labels)), len(set(map(str, labels)))):
                yield _fault(("parameters", key), "have each value once", labels)

    def _condition_faults(self) -> Iterator[InitErrorDetails]:
        order = list(self.parameters)
        for key in self.conditions:
            place = ("conditions", key)
            if key not in order:
                rule = f"be about a parameter of the space ({', '.join(order)})"
                yield _fault(place, rule, key)
                continue
            earlier = order[: order.index(key)]
            for parent, wanted in self.wanted(key).items():
                if parent not in earlier:
                    known = ", ".join(earlier) or "none"
                    rule = f"depend on parameters that come before it ({known})"
                    yield _fault(place, rule, parent)
                    continue
                for value in wanted:
                    if not self._may_be(parent, value):
                        rule = f"depend on values that {parent} can take ({self._known(parent)})"
                        yield _fault(place, rule, value)

    def _may_be(self, key: str, value: Scalar) -> bool:
        names = (self._name(key, known) for known in self.values(key))
        return self.holds(key, value) or any(_same(name, value) for name in names)

    def _known(self, key: str) -> str:
        dimension = self.parameters[key]
        if isinstance(dimension, Range):
            return f"from {dimension.low} to {dimension.high}"
        return ", ".join(map(str, self.values(key)))


def label(value: Any) -> Any:
    """Label a value in trials: whole choices and lists go by their text."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        value = Choice.model_validate(value)
    if isinstance(value, Choice):
        return value.label
    return str(value) if isinstance(value, list | dict) else value


def _same(one: Any, other: Any) -> bool:
    """Compare two values, with True and 1 different."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, abs_tol=1e-12)  # samplers sum steps in several ways
    return bool(one == other)


def _fault(place: tuple[str, ...], rule: str, given: Any) -> InitErrorDetails:
    # By a context, because the text may contain braces.
    error = PydanticCustomError("space", "{rule}", {"rule": rule})
    return InitErrorDetails(type=error, loc=place, input=given)
