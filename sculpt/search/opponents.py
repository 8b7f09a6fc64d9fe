"""The opponents of a study: what each of them trains, and the queue of those that are missing."""

from collections.abc import Callable, Sequence
from functools import cache

from sculpt.config import (
    Choice,
    Opponent,
    Params,
    Sparsity,
    Study,
    describe_parameters,
    label,
)
from sculpt.config.arms import with_arm
from sculpt.config.opponents import NEAR
from sculpt.data import Spec
from sculpt.errors import ConfigError, InputError
from sculpt.registry import MODELS, options_of
from sculpt.search.sampling.feasibility import (
    OpponentSize,
    check_candidate,
    measure_size,
    measured,
)
from sculpt.search.wanted_trials import queue_wanted
from sculpt.storage.store import OPPONENT, Store
from sculpt.trial_setup import TrialSetup, candidate_budget, candidate_macs

WIDTHS = ("widening", "units")
"""Options that make a network of a family wider: the first one that the family has is solved."""

WIDEST, FINEST = 2.0**20, 2.0**-11
"""Largest width to try, and its finest step, as a share of the width."""

DIGITS = 6


def queue_opponents(store: Store, *, dry: bool = False) -> int:
    """Queue the opponents that have not run, or only count them; return how many are left to run.

    Any number of workers may call this.
    """
    if not store.config.opponents or store.opponents is None:
        return 0
    trials = store.trials(store.opponents)
    if not dry:
        trials.requeue()  # or one that was interrupted would come back after it was withdrawn
    wanted = [{OPPONENT: opponent.model_dump()} for opponent in store.config.opponents]

    def queue() -> int:
        with trials.storage.lock():
            return queue_wanted(trials, wanted, dry=dry, current=store.is_current)

    # Repeated from the start if a server's connection is lost: trials already queued are seen.
    return trials.storage.patience(queue)


def opponent_setup(config: Study, opponent: Opponent, spec: Spec) -> TrialSetup:
    """Return the setup of an opponent, with the seeds of the search.

    The width of a dense network is solved for its budget, unless it is given: then its budget is
    its own size.

    Raises:
        ConfigError: no dense network of the family is near enough to the budget.
    """
    params = opponent.options
    study = with_arm(config.with_parameters(params), opponent.name)
    budget = None
    if opponent.name == "dense" and any(width in params for width in WIDTHS):
        budget = measure_size(study, spec).dense_parameters
    elif opponent.name == "dense":
        params |= solve_width(config, opponent, spec)
        study = config.with_parameters(params)
    return TrialSetup(
        label=opponent.label,
        study=study,
        role="opponent",
        params={key: label(value) for key, value in params.items()},
        budget=candidate_budget(config, study, spec) if budget is None else budget,
        seeds=config.search.seeds,
        arm=opponent.name,
        macs=candidate_macs(config, study, spec),
    )


def opponent_setups(config: Study, spec: Spec) -> list[TrialSetup]:
    """Return the setups of all opponents of a study.

    Raises:
        ConfigError: an opponent cannot be built, or cannot hold the budget.
    """
    setups = []
    for place, opponent in enumerate(config.opponents):
        try:
            setup = opponent_setup(config, opponent, spec)
            reason = None if setup.is_dense else check_candidate(config, setup.study, spec).reason
        except InputError as error:
            reason = str(error)
        if reason:
            raise ConfigError(f"opponents.{place} ({opponent.label}): {reason}")
        setups.append(setup)
    return setups


def opponent_sizes(config: Study, spec: Spec) -> list[OpponentSize]:
    """Return the sizes and costs of the opponents of a study; ConfigError as `opponent_setups`."""
    sizes: list[OpponentSize] = []
    for setup in opponent_setups(config, spec):
        size = measured(check_candidate(config, setup.study, spec))
        if setup.is_dense:  # it need not be larger than the budget
            size |= {"budget": setup.budget, "sparsity": 0.0, "feasible": True, "reason": None}
        sizes.append({"opponent": str(setup.label), "params": setup.params, **size})
    return sizes


def solve_width(config: Study, opponent: Opponent, spec: Spec) -> Params:
    """Solve the width at which the size of a dense network is within `NEAR` of the budget.

    Of a budget of MACs alone these count, and else the parameters.

    Where even the narrowest is too large, or the steps between two widths are too coarse, the stem
    of families that have one (`stem_width`) is narrowed, too, no more than it takes: to half of
    what would fit, because a bottleneck at the input is no fair opponent.

    Raises:
        ConfigError: no width is near enough, or the family or the budget has none.
    """
    study = config.with_parameters(opponent.options)
    if isinstance(study.budget, Sparsity):
        raise ConfigError(
            "a dense opponent must have a number of parameters to meet, but the study's budget is "
            "a share of each network's own; give the opponent a budget"
        )
    family = study.model.name
    known = options_of(MODELS.get(family))
    width = next((name for name in WIDTHS if name in known), None)
    if width is None:
        raise ConfigError(
            f"a dense opponent must be of a family with one of {', '.join(WIDTHS)}, which is "
            f"solved, but {family} has none; leave the opponent out"
        )
    size = candidate_macs(config, study, spec) if study.counts_macs else None
    size = candidate_budget(config, study, spec) if size is None else size
    return dict(_solved(study.model_dump_json(), width, size, spec))


@cache
def _solved(document: str, width: str, budget: int, spec: Spec) -> Params:
    """Solve the width of a study's model; cached, because every worker and check asks for it."""
    study = Study.model_validate_json(document)
    best: tuple[float, Params, int] | None = None
    whole = width == "units"
    fitting = 0
    """The widest stem that fits."""
    for stem in _stems(study.model):
        if stem < fitting / 2:
            break
        narrowed = {"stem_width": stem} if stem != _stems(study.model)[0] else {}

        @cache
        def size(value: float, beside: Params = narrowed) -> int:
            """Count the parameters; 0 where the network cannot be as narrow."""
            model = study.model.model_copy(update={width: int(value) if whole else value} | beside)
            try:
                found = measure_size(study.model_copy(update={"model": model}), spec)
            except InputError:
                return 0
            return found.cost.dense_macs if study.counts_macs else found.dense_parameters

        widths = _around(size, budget, whole=whole)
        fitting = fitting or (stem if len(widths) == 2 else 0)
        for value in widths:
            count = size(value)
            if best is None or abs(count / budget - 1) < best[0]:
                best = abs(count / budget - 1), {width: value} | narrowed, count
        if best and best[0] <= NEAR:
            return best[1]
    unit = "MACs" if study.counts_macs else "parameters"
    nearest = f"has {best[2]}, with {describe_parameters(best[1])}" if best else "cannot be built"
    raise ConfigError(
        f"a dense opponent must be within {NEAR:.0%} of {budget} {unit}, but the nearest "
        f"{nearest}; choose other options, or another budget for it"
    )


def _stems(model: Choice) -> Sequence[int]:
    """Return the width of the stem as it is, and ever narrower ones; 0 alone without a stem."""
    known = options_of(MODELS.get(model.name))
    if "stem_width" not in known:
        return [0]
    return range(model.options.get("stem_width", known["stem_width"].default), 0, -1)


def _around(size: Callable[[float], int], budget: int, *, whole: bool) -> list[float]:
    """Find the widths on either side of a budget whose sizes are nearest to it; only the wider one
    where no network is small enough."""
    low, high = 0.0, 1.0
    while size(high) < budget:
        low, high = high, 2 * high
        if high > WIDEST:
            return [low]
    while high - low > (1 if whole else FINEST * high):
        middle = (low + high) // 2 if whole else (low + high) / 2
        low, high = (middle, high) if size(middle) < budget else (low, middle)
    sides = [side for side in (low, high) if size(side)]
    return [int(side) for side in sides] if whole else [_shortened(side, size) for side in sides]


def _shortened(value: float, size: Callable[[float], int]) -> float:
    """Round a width as far as leaves the size as it is."""
    rounded = (round(value, digits) for digits in range(DIGITS))
    return next((short for short in rounded if size(short) == size(value)), value)
