"""Feasible configurations: the budget, the constraints, dense costs, and trained networks that fit.

Everything is measured on the meta device, without weights, before anything is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, TypedDict

import torch
from torch import nn

from sculpt.config import Constraints, Params, Space, Sparsity, Study, parameter_path
from sculpt.data import Spec
from sculpt.diagnostics.cost import Cost, measure_cost, training_memory
from sculpt.errors import ConfigError, InputError, SculptError
from sculpt.pruning.macs import check_macs
from sculpt.pruning.masks import count_parameters, prunable_budget
from sculpt.pruning.patterns import pattern_of
from sculpt.search.sampling.networks_from_files import (
    check_networks_fit,
    check_networks_readable,
    networks_from_files,
)
from sculpt.search.sampling.samplers import resolve_sampler
from sculpt.search.sampling.space import (
    MOST_POINTS,
    corners,
    is_enumerable,
    points,
    some_points,
    space_size,
)
from sculpt.trial_setup import build_model, candidate_budget, candidate_macs, resolve_budget

TRIED = 200
"""Points of a large space that are drawn, beside its corners, to see whether any is feasible."""


class Measured(TypedDict):
    """A configuration's dense network and its budget, in numbers; 0 where it cannot be built."""

    dense_parameters: int
    budget: int
    sparsity: float
    dense_macs: int
    """For one image."""
    memory_bytes: int
    """Estimate for training it."""
    feasible: bool
    reason: str | None
    """Why it is not feasible."""


class Corner(Measured):
    """The same for a point of the space."""

    params: Params


class OpponentSize(Measured):
    """The same for an opponent."""

    opponent: str
    params: Params


class BaseSize(TypedDict):
    """The dense base, in numbers."""

    params: Mapping[str, object]
    dense_parameters: int
    macs: int
    memory_bytes: int


class Prediction(TypedDict):
    """The predicted time of running a study, by its last measurement."""

    seconds: float
    measured_on: Mapping[str, object]
    """The device, as in a trial's record."""


class CheckedStudy(TypedDict):
    """The document of `sculpt check` (docs/reference/json.md)."""

    study: str
    counting: str
    budget: int | None
    base: BaseSize
    corners: list[Corner]
    space_size: int | None
    sampler: str
    trials: int
    opponents: NotRequired[list[OpponentSize]]
    """Sizes of opponents, in a study that has any."""
    macs: NotRequired[int]
    """Budget of multiply-accumulates, in a study that has one."""
    predicted: NotRequired[Prediction | None]


@dataclass(frozen=True)
class Size:
    """A configuration's dense network, on the meta device."""

    model: nn.Module
    input_shape: tuple[int, ...]
    dense_parameters: int
    batch_size: int

    @cached_property
    def cost(self) -> Cost:
        """Cost of a forward pass; only found where it is asked for, because that takes time."""
        return measure_cost(self.model, self.input_shape)

    @property
    def memory_bytes(self) -> int:
        """Estimate for training it."""
        return training_memory(self.dense_parameters, self.cost, self.batch_size)


@dataclass(frozen=True)
class Feasibility:
    """Whether a candidate holds its budget and keeps within the constraints."""

    budget: int
    """Parameters that it is to keep; 0 where that is a share of a network that cannot be built."""
    reason: str | None
    """Why it cannot be run; None if it can."""
    violations: dict[str, float]
    """By how much each rule is broken, as a share of its limit; at most 0 where it is kept. The
    keys are the same for every candidate of a study: `budget`, and the constraints it sets."""
    size: Size | None
    """None if it cannot be built."""
    macs: int | None = None
    """Most multiply-accumulates of its kept weights, if the budget limits them."""


def measure_size(study: Study, spec: Spec) -> Size:
    """Build a configuration on the meta device and measure it; InputError if it cannot be built."""
    with torch.device("meta"):
        model = build_model(study, spec)
    return Size(
        model, spec.shape, count_parameters(model, study.counting), study.training.batch_size
    )


def check_candidate(study: Study, candidate: Study, spec: Spec) -> Feasibility:
    """Return whether a candidate (the study with sampled values in place) can be run, and if not,
    why."""
    budget, macs = 0, None
    try:
        budget = candidate_budget(study, candidate, spec)
        macs = candidate_macs(study, candidate, spec)
        size = measure_size(candidate, spec)
    except SculptError as error:
        violations = dict.fromkeys(["budget", *_limits(study.space)], 1.0)
        return Feasibility(budget, str(error), violations, None)
    dense = size.dense_parameters
    never_pruned = dense - count_parameters(size.model, "paper")
    # A budget may be too large for the network, or too small for what is never pruned.
    violations = {
        "budget": max(budget / max(1, dense) - 1, (never_pruned + 1 - budget) / max(1, budget))
    }
    reasons = [*candidate.contradictions().values(), *augmentation_faults(candidate, spec)]
    if reasons:
        violations["budget"] = max(violations["budget"], 0) or 1.0
    try:
        kept = prunable_budget(size.model, budget, candidate.counting)
        pattern = pattern_of(candidate.pruning.granularity)
        if macs is not None and candidate.counts_macs:
            check_macs(size.model, size.cost, macs, pattern)
        elif pattern:
            pattern.check_budget(size.model, kept)
        check_networks_fit(candidate, size.model, size.input_shape, kept)
    except InputError as error:
        reasons.append(str(error))
        # Where it is not the number that is wrong, all of the rule is broken.
        violations["budget"] = max(violations["budget"], 0) or 1.0
    for name, limit in _limits(candidate.space).items():
        amount, unit = _amount(size, name)
        violations[name] = amount / limit - 1
        if amount > limit:
            reasons.append(
                f"the dense network must have at most {limit} {unit} (space.constraints.{name}), "
                f"but has {amount}; choose a smaller network, or raise the limit"
            )
    return Feasibility(budget, "; also, ".join(reasons) or None, violations, size, macs)


AUGMENTATIONS = {"flip": "false", "translate": "0", "cutout": "0", "cutmix": "0"}
"""Settings that need images, and what turns them off."""


def augmentation_faults(study: Study, spec: Spec) -> list[str]:
    """List the augmentations that reach beyond the images, or are of other inputs than images."""
    if not spec.pixels:
        return [
            f"training.{name}: must be {off} for inputs that are not images of 8 bits, but got "
            f"{getattr(study.training, name)}; augment them in the factory of the data"
            for name, off in AUGMENTATIONS.items()
            if getattr(study.training, name)
        ]
    _, height, width = spec.shape
    side = min(height, width)
    limits = {"translate": side - 1, "cutout": side}
    return [
        f"training.{name}: must be at most {most} for images of {width}x{height} pixels, "
        f"but got {getattr(study.training, name)}; lower it, or set it to 0"
        for name, most in limits.items()
        if getattr(study.training, name) > most
    ]


def total_trials(study: Study, spec: Spec) -> int:
    """Return the total of trials to run, the base included.

    Raises:
        ConfigError: No point of the space is feasible, there are fewer feasible points than
            trials (a configuration is never run twice), `all` is asked of too many points, or a
            trained network fits no point.
        InputError: A trained network cannot be read, or does not fit the base.
    """
    return _total(study, spec, {})


def check_study(study: Study, spec: Spec) -> CheckedStudy:
    """Return the sizes and costs of the base and of the space's corners, as a JSON document.

    A corner that cannot be built has sizes of 0, and the reason.

    Raises:
        ConfigError: The study cannot be run; see `total_trials`.
        InputError: The base cannot be built.
    """
    budget = resolve_budget(study, spec)
    base = measure_size(study, spec)
    rows: list[Corner] = []
    known: dict[str, Measured] = {}
    for point in corners(study.space):
        candidate = study.with_parameters(point)
        network = _network(candidate)
        if network not in known:
            known[network] = measured(check_candidate(study, candidate, spec))
        rows.append({"params": point, **known[network]})
    sampled = {parameter_path(key).split(".")[0] for key in study.space.parameters}
    budgets_differ = isinstance(study.budget, Sparsity) or study.counts_macs or "budget" in sampled
    document: CheckedStudy = {
        "study": study.study,
        "counting": study.counting,
        "budget": None if budgets_differ else budget,
        "base": {
            "params": study.model.options,
            "dense_parameters": base.dense_parameters,
            "macs": base.cost.dense_macs,
            "memory_bytes": base.memory_bytes,
        },
        "corners": rows,
        "space_size": space_size(study.space),
        "sampler": resolve_sampler(study),
        "trials": _total(study, spec, {key: row["reason"] for key, row in known.items()}),
    }
    if (most := candidate_macs(study, study, spec)) is not None:
        document["macs"] = most
    return document


def measured(found: Feasibility) -> Measured:
    """Return sizes, costs and feasibility of a configuration as numbers."""
    size = found.size
    dense = size.dense_parameters if size else 0
    return {
        "dense_parameters": dense,
        "budget": found.budget,
        "sparsity": 1 - found.budget / dense if dense else 0.0,
        "dense_macs": size.cost.dense_macs if size else 0,
        "memory_bytes": size.memory_bytes if size else 0,
        "feasible": found.reason is None,
        "reason": found.reason,
    }


def _total(study: Study, spec: Spec, reasons: dict[str, str | None]) -> int:
    """Return the total of trials; `reasons` are those known already, by `_network`."""
    check_networks_readable(study, spec)
    if faults := augmentation_faults(study, spec):
        raise ConfigError("\n".join(faults))
    asked = study.search.trials
    if not is_enumerable(study.space):
        tried = []
        for point in some_points(study.space, TRIED):
            tried.append(check_candidate(study, study.with_parameters(point), spec).reason)
            if tried[-1] is None:
                break
        else:
            raise ConfigError(
                f"space: a search must find feasible points, but none of {len(tried)}, its corners "
                f"and others at random, is one; the first: {tried[0]}"
            )
        if asked == "all":
            raise ConfigError(
                f"search.trials: must be a number where the space has more than {MOST_POINTS} "
                "points, but got 'all'; give a number, or coarser steps"
            )
        return asked
    found = []
    unfit: dict[str, list[str | None]] = {}
    for point in points(study.space):
        candidate = study.with_parameters(point)
        network = _network(candidate)
        if network not in reasons:
            reasons[network] = check_candidate(study, candidate, spec).reason
        found.append(reasons[network])
        for key, choice in networks_from_files(candidate).items():
            unfit.setdefault(f"pruning.{key}: {choice.label}", []).append(reasons[network])
    feasible = found.count(None)
    if feasible == 0:
        also = " and keep the constraints" if _limits(study.space) else ""
        also += " and fit its trained network" if unfit else ""
        raise ConfigError(
            f"space: at least one point must hold the budget{also}, but none does; the first "
            f"one: {found[0]}"
        )
    for label, why in unfit.items():
        if None not in why:
            raise ConfigError(
                f"{label} must fit at least one point of the space, but fits none; the first "
                f"one: {why[0]}"
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


def _network(candidate: Study) -> str:
    """Return all settings that feasibility depends on; most parameters are none of them."""
    training = candidate.training
    settings = (
        candidate.budget,
        candidate.counting,
        (training.batch_size, *(getattr(training, name) for name in AUGMENTATIONS)),
        candidate.contradictions(),
        candidate.pruning.initializer.label,
        candidate.pruning.granularity,
    )
    pruning = candidate.pruning.model_dump_json() if networks_from_files(candidate) else ""
    return f"{candidate.model.model_dump_json()} {settings} {pruning}"


def _amount(size: Size, constraint: str) -> tuple[int, str]:
    """Return the amount that a constraint limits, and its unit."""
    if constraint == "max_dense_parameters":
        return size.dense_parameters, "parameters"
    if constraint == "max_macs":
        return size.cost.dense_macs, "multiply-accumulates"
    return size.memory_bytes, "bytes of memory"


def _limits(space: Space) -> dict[str, int]:
    """Return the constraints that are set."""
    limits = {name: getattr(space.constraints, name) for name in Constraints.model_fields}
    return {name: int(limit) for name, limit in limits.items() if limit is not None}
