"""The search space: its points, what a sampler may suggest, and which points are feasible."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import torch

from sculpt.config import Range, Space, Sparsity, Study
from sculpt.data import ImageSpec
from sculpt.diagnostics.cost import Cost, measure_cost
from sculpt.errors import BudgetError, ConfigError, InputError, SculptError
from sculpt.pruning.masks import count_parameters, prunable_budget
from sculpt.trial import build_model, candidate_budget, resolve_budget

MOST_CORNERS = 100
"""`check` lists every point of a space up to this size, and the extreme ones of a larger one."""

MOST_POINTS = 10_000
"""Spaces up to this size are sampled without replacement, and their feasible points counted."""

BYTES_PER_PARAMETER = 16
"""Training in float32 keeps a weight, its gradient, its momentum and its mask."""


@dataclass(frozen=True)
class Size:
    """A configuration's dense network, measured without weights."""

    dense_parameters: int
    cost: Cost
    reason: str | None
    """Why it cannot hold the budget; None if it can."""

    def memory_bytes(self, batch_size: int) -> int:
        """Estimate training memory: weights and their copies, and float32 activations."""
        return BYTES_PER_PARAMETER * self.dense_parameters + 4 * batch_size * self.cost.activations


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Let Optuna choose a value for every parameter of the space."""
    params: dict[str, Any] = {}
    for key, values in space.parameters.items():
        if not isinstance(values, Range):
            params[key] = trial.suggest_categorical(key, list(space.values(key)))
        elif values.whole:
            step = int(values.step or 1)
            params[key] = trial.suggest_int(
                key, int(values.low), int(values.high), step=step, log=values.log
            )
        else:
            params[key] = trial.suggest_float(
                key, values.low, values.high, step=values.step, log=values.log
            )
    return params


def axis(space: Space, key: str) -> list[Any] | None:
    """Return every value of a parameter in order, or None if there are infinitely many."""
    values = space.parameters[key]
    if not isinstance(values, Range):
        return list(space.values(key))
    if values.whole:
        return list(range(int(values.low), int(values.high) + 1, int(values.step or 1)))
    if values.step is None:
        return None
    count = math.floor((values.high - values.low) / values.step + 1e-9) + 1
    return [values.low + i * values.step for i in range(count)]


def space_size(space: Space) -> int | None:
    """Return the number of points, or None if there are infinitely many."""
    axes = [axis(space, key) for key in space.parameters]
    return math.prod(len(a) for a in axes if a is not None) if None not in axes else None


def is_enumerable(space: Space) -> bool:
    """Return whether the points are few enough to keep account of each."""
    size = space_size(space)
    return size is not None and size <= MOST_POINTS


def points(space: Space) -> Iterator[dict[str, Any]]:
    """Yield every point of a finite space; the last parameter varies fastest."""
    axes = [axis(space, key) or [] for key in space.parameters]
    for values in itertools.product(*axes):
        yield dict(zip(space.parameters, values, strict=True))


def extremes(space: Space) -> Iterator[dict[str, Any]]:
    """Yield the corners of a large space: every combination of first and last values."""
    ends = []
    for key, values in space.parameters.items():
        listed = list(space.values(key))
        low, high = (
            (values.low, values.high) if isinstance(values, Range) else (listed[0], listed[-1])
        )
        ends.append([low] if low == high else [low, high])
    for corner in itertools.islice(itertools.product(*ends), MOST_CORNERS):
        yield dict(zip(space.parameters, corner, strict=True))


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Yield the points that `check` lists."""
    size = space_size(space)
    return points(space) if size is not None and size <= MOST_CORNERS else extremes(space)


def check_params(space: Space, params: dict[str, Any]) -> None:
    """Refuse what is no value of the space; parameters may be left out.

    Raises:
        InputError: a key or a value is none of the space's.
    """
    for key, value in params.items():
        if key not in space.parameters:
            raise InputError(
                f"params must be parameters of the space ({', '.join(space.parameters)}), but got "
                f"{key!r}; for other keys of the study use --set KEY=VALUE"
            )
        values = space.parameters[key]
        known = space.values(key)
        if not isinstance(values, Range) and value not in known:
            raise InputError(
                f"params.{key} must be one of {', '.join(map(str, known))}, but got {value!r}"
            )
        if isinstance(values, Range) and not values.low <= value <= values.high:
            raise InputError(
                f"params.{key} must be from {values.low} to {values.high}, but got {value!r}"
            )


def measure_size(study: Study, spec: ImageSpec, budget: int) -> Size:
    """Build a configuration on the meta device and hold it against the budget."""
    with torch.device("meta"):
        model = build_model(study, spec)
    reason = None
    try:
        prunable_budget(model, budget, study.counting)
    except BudgetError as error:
        reason = str(error)
    cost = measure_cost(model, (spec.channels, spec.height, spec.width))
    return Size(count_parameters(model, study.counting), cost, reason)


def infeasible_reason(study: Study, spec: ImageSpec, budget: int) -> str | None:
    """Return why a configuration cannot be pruned to the budget, or None if it can."""
    try:
        return measure_size(study, spec, budget).reason
    except SculptError as error:
        return str(error)


def total_trials(study: Study, spec: ImageSpec) -> int:
    """Return the total of trials to run, the base included.

    Raises:
        ConfigError: no point of the space is feasible, there are fewer feasible points than
            trials (a configuration is never run twice), or `all` is asked of too many points.
    """
    asked = study.search.trials
    if not is_enumerable(study.space):
        if asked == "all":
            raise ConfigError(
                f"search.trials: must be a number where the space has more than {MOST_POINTS} "
                "points, but got 'all'; give a number, or coarser steps"
            )
        return asked
    # Most parameters leave the network's size alone, so few different ones are built.
    known: dict[str, str | None] = {}
    reasons = []
    for point in points(study.space):
        candidate = study.with_parameters(point)
        key = f"{candidate.model.model_dump_json()} {candidate.budget}"
        if key not in known:
            kept = candidate_budget(study, candidate, spec)
            known[key] = infeasible_reason(candidate, spec, kept)
        reasons.append(known[key])
    feasible = sum(reason is None for reason in reasons)
    if feasible == 0:
        raise ConfigError(
            "space: at least one point must hold the budget, but none does; the first one: "
            f"{reasons[0]}"
        )
    if asked == "all":
        return feasible + 1
    if asked > feasible + 1:
        raise ConfigError(
            f"search.trials: must be at most {feasible + 1} (the base and {feasible} feasible "
            f"points, none of them run twice), but got {asked}; lower it, say 'all', or widen "
            "the space"
        )
    return asked


def check_study(study: Study, spec: ImageSpec) -> dict[str, Any]:
    """Return the sizes and costs of the base and of the space's corners, as a JSON document.

    Raises:
        ConfigError: the study cannot be run; see `total_trials`.
    """
    budget = resolve_budget(study, spec)
    batch_size = study.training.batch_size
    relative = isinstance(study.budget, Sparsity)
    base = measure_size(study, spec, budget)
    rows = []
    for point in corners(study.space):
        candidate = study.with_parameters(point)
        kept = candidate_budget(study, candidate, spec)
        size = measure_size(candidate, spec, kept)
        rows.append(
            {
                "params": point,
                "dense_parameters": size.dense_parameters,
                "budget": kept,
                "sparsity": 1 - kept / size.dense_parameters,
                "dense_macs": size.cost.dense_macs,
                "memory_bytes": size.memory_bytes(candidate.training.batch_size),
                "feasible": size.reason is None,
                "reason": size.reason,
            }
        )
    return {
        "study": study.study,
        "counting": study.counting,
        "budget": None if relative else budget,
        "base": {
            "params": study.model.options,
            "dense_parameters": base.dense_parameters,
            "macs": base.cost.dense_macs,
            "memory_bytes": base.memory_bytes(batch_size),
        },
        "corners": rows,
        "space_size": space_size(study.space),
        "trials": total_trials(study, spec),
    }
