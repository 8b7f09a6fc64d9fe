"""The search space: its points, how many there are, and what a sampler may suggest."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sculpt.config import Params, Range, Space, label
from sculpt.errors import InputError

MOST_CORNERS = 100
"""`check` lists every point of a space up to this size, and the extreme ones of a larger one."""

MOST_POINTS = 10_000
"""Spaces up to this size are sampled without replacement, and their feasible points counted."""


def distribution(space: Space, key: str) -> BaseDistribution:
    """Return Optuna's distribution of a parameter; lists and choices go by their label."""
    values = space.parameters[key]
    if not isinstance(values, Range):
        return CategoricalDistribution(list(space.values(key)))
    # Up to the last number that a step reaches: Optuna warns of others.
    high = values.high if values.count is None else values.at(values.count - 1)
    if values.whole:
        step = int(values.step or 1)
        return IntDistribution(int(values.low), int(high), log=values.log, step=step)
    return FloatDistribution(values.low, high, log=values.log, step=values.step)


def suggest(trial: optuna.Trial, space: Space) -> Params:
    """Let Optuna choose a value for every parameter that is sampled, in order."""
    params: Params = {}
    for key, values in space.parameters.items():
        if not space.is_active(key, params):
            continue
        match distribution(space, key):
            case CategoricalDistribution(choices=choices):
                params[key] = trial.suggest_categorical(key, choices)
            case IntDistribution(low=low, high=high, log=log, step=step):
                params[key] = trial.suggest_int(key, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, log=log, step=step):
                params[key] = trial.suggest_float(key, low, high, step=step, log=log)
                if isinstance(values, Range) and values.count is not None:
                    # Samplers add steps up in more than one way, and differ in the last digits.
                    params[key] = values.at(values.place(params[key]))
    return params


def space_size(space: Space) -> int | None:
    """Return the number of points.

    None if there are infinitely many, or so many conditions that hang together that to count
    would take longer than anyone waits; there are more than `MOST_POINTS` then.
    """
    # How many ways lead to each set of parameters that are ruled out: few sets, many points.
    ways: Counter[frozenset[str]] = Counter([frozenset()])
    for key in space.parameters:
        then: Counter[frozenset[str]] = Counter()
        for ruled_out, count in ways.items():
            if key in ruled_out:
                then[(ruled_out | _dependent(space, key)) - {key}] += count
                continue
            values = _values_by_effect(space, key)
            if values is None:
                return None
            for effect, number in values.items():
                then[ruled_out | effect] += count * number
        ways = then
        if len(ways) > MOST_POINTS:
            return None
    return sum(ways.values())


def is_enumerable(space: Space) -> bool:
    """Return whether the points are few enough to keep account of each."""
    size = space_size(space)
    return size is not None and size <= MOST_POINTS


def points(space: Space) -> Iterator[Params]:
    """Yield every point of a finite space once; the last parameter varies fastest.

    Parameters that a point does not sample are left out of it.
    """
    return space.combinations(space.parameters, lambda key: values_of(space, key))


def extremes(space: Space) -> Iterator[Params]:
    """Yield the corners of a large space: every combination of first and last values.

    Where these are more than `MOST_CORNERS`, later parameters keep their first value.
    """
    ends: dict[str, list[Any]] = {}
    count = 1
    for key, values in space.parameters.items():
        listed = [values.low, values.high] if isinstance(values, Range) else [*space.values(key)]
        several = listed[0] != listed[-1] and 2 * count <= MOST_CORNERS
        ends[key] = [listed[0], listed[-1]] if several else listed[:1]
        count *= len(ends[key])
    return space.combinations(space.parameters, ends.__getitem__)


def some_points(space: Space, number: int) -> Iterator[Params]:
    """Yield the corners of a large space, then so many points at random."""
    yield from extremes(space)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # or it tells of this study
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    optuna.logging.set_verbosity(verbosity)
    for _ in range(number):
        yield suggest(drawn.ask(), space)


def corners(space: Space) -> Iterator[Params]:
    """Yield the points that `check` lists."""
    size = space_size(space)
    return points(space) if size is not None and size <= MOST_CORNERS else extremes(space)


def check_params(space: Space, params: Params) -> None:
    """Refuse values that are none of the space's, by an InputError; parameters may be left out.

    Lists and whole choices may be given as they are, or by their label.
    """
    for key, value in params.items():
        if key not in space.parameters:
            raise InputError(
                f"params must be parameters of the space ({', '.join(space.parameters)}), but got "
                f"{key!r}; for other keys of the study use --set KEY=VALUE"
            )
        if space.holds(key, value):
            continue
        values = space.parameters[key]
        rule = f"one of {', '.join(map(str, space.values(key)))}"
        if isinstance(values, Range):
            rule = f"{'whole and ' if values.whole else ''}from {values.low} to {values.high}"
            rule += f" in steps of {values.step}" if values.step else ""
        raise InputError(f"params.{key} must be {rule}, but got {value!r}")
    active: Params = {}
    for key in filter(params.__contains__, space.parameters):
        if not space.is_active(key, active):
            parents = space.wanted(key).items()
            where = ", ".join(f"{p} is {' or '.join(map(str, wanted))}" for p, wanted in parents)
            given = ", ".join(f"{p} is {label(active.get(p, 'not given'))}" for p, _ in parents)
            raise InputError(
                f"params.{key} must be given only where {where}, but {given}; leave it out, or "
                f"set {' and '.join(f'params.{parent}' for parent, _ in parents)} to that"
            )
        active[key] = params[key]


def values_of(space: Space, key: str) -> Iterator[Any]:
    """Yield every value of a parameter with finitely many of them, in order."""
    values = space.parameters[key]
    if isinstance(values, Range):
        return map(values.at, range(values.count or 0))
    return iter(space.values(key))


def _dependent(space: Space, key: str) -> frozenset[str]:
    return frozenset(child for child, parents in space.conditions.items() if key in parents)


def _values_by_effect(space: Space, key: str) -> Counter[frozenset[str]] | None:
    """Count a parameter's values by the parameters that they rule out; None if infinitely many."""
    values, children = space.parameters[key], _dependent(space, key)
    count = 0
    singled_out: set[Any] = set(space.values(key))
    if isinstance(values, Range):
        if values.count is None:
            return None
        # A range may be long; all but the values that conditions name are alike.
        singled_out = {value for child in children for value in space.wanted(child)[key]}
        count = values.count - len(singled_out)
    effects = Counter({children: count} if count else {})
    for value in singled_out:
        effects[frozenset(c for c in children if not space.admits(c, key, value))] += 1
    return effects
