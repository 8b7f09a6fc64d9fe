"""A sampler that proposes whole configurations, and none that the study already holds."""

import copy
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from sculpt.config import Params, Space
from sculpt.search.sampling.space import distribution, is_enumerable, points
from sculpt.storage.attributes import INFEASIBLE
from sculpt.storage.trials import original_number

Key = frozenset[tuple[Any, ...]]
"""The parameters of a trial, as something that sets can hold."""

PROPOSALS = 5
"""Number of proposals of a sampler before chance takes its place."""


class UnrepeatedSampler(BaseSampler):
    """Asks another sampler, again if need be; small spaces have their open points to fall back on.

    Model-based samplers propose the best point they know over and over, and workers that ask at
    one moment get one answer. Optuna asks for values while a trial is suggested its parameters,
    which happens under the storage's lock: a point that is open here is taken here.

    Args:
        space: The search space.
        proposing: The sampler that is asked; without one, points are taken in their order.
        seed: Seed of the choice among open points.
    """

    def __init__(self, space: Space, proposing: BaseSampler | None, seed: int):
        self._space = space
        self._proposing = proposing
        self._generator = np.random.default_rng(seed)
        # A stream of its own: the other sampler may begin with the very draws of this seed.
        self._chance = RandomSampler(seed=int(self._generator.integers(2**32)))
        self._drawn: dict[int, Params] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if param_name not in self._space.parameters:
            other = self._proposing or self._chance
            return other.sample_independent(study, trial, param_name, param_distribution)
        if trial.number not in self._drawn:
            self._drawn = {trial.number: self._draw(study, trial)}
        return self._drawn[trial.number][param_name]

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if self._proposing:
            self._proposing.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        if self._proposing:
            self._proposing.after_trial(study, trial, state, values)

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> Params:
        """Return a whole configuration that agrees with what the trial already has."""
        keys = keys_of(study, study.get_trials(deepcopy=False))
        taken = {key for number, key in enumerate(keys) if number != trial.number}
        samplers = [self._proposing, self._chance] if self._proposing else []
        params: Params = {}
        for sampler in samplers:
            for _ in range(PROPOSALS):
                params = self._propose(sampler, study, trial)
                if key_of(params) not in taken:
                    return params
        if not is_enumerable(self._space):
            return params
        begun = key_of(trial.params)
        possible = [point for point in points(self._space) if begun <= key_of(point)]
        open_points = [point for point in possible if key_of(point) not in taken] or possible
        # In their order where there is no sampler.
        index = self._generator.integers(len(open_points)) if self._proposing else 0
        return open_points[index]

    def _propose(self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial) -> Params:
        """Walk through the space as Optuna's trials do, on a trial that is not written down."""
        draft = copy.copy(trial)
        draft.params, draft.distributions = dict(trial.params), dict(trial.distributions)
        related = sampler.infer_relative_search_space(study, draft)
        relative = sampler.sample_relative(study, draft, related)
        for key in self._space.parameters:
            if key in draft.params or not self._space.is_active(key, draft.params):
                continue
            allowed = distribution(self._space, key)
            if key in relative:
                value = relative[key]
            else:
                value = sampler.sample_independent(study, draft, key, allowed)
            draft.distributions[key] = allowed
            draft.params[key] = value
        return draft.params


def first_with(params: Params, trial: optuna.Trial) -> int | None:
    """Return the number of an earlier trial of the same configuration, or None.

    There is one only where a worker was killed, or lost the lock, while it was suggested its
    parameters: the next attempt is bound to those that were written, and the rest may be taken by
    then. Trials that were refused themselves do not count.
    """
    trials, key = trial.study.get_trials(deepcopy=False), key_of(params)
    origin = original_number(trials[trial.number])
    earlier = trials[: trial.number]
    for other, taken in zip(earlier, keys_of(trial.study, earlier), strict=True):
        if taken == key and INFEASIBLE not in other.user_attrs and original_number(other) != origin:
            return other.number
    return None


def keys_of(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[Key]:
    """Return the parameters of trials of a study."""
    known = _finished.setdefault(study, {})
    new = {trial.number: trial for trial in trials if trial.number not in known}
    keys = {number: key_of(trial.params) for number, trial in new.items()}
    known |= {number: keys[number] for number, trial in new.items() if trial.state.is_finished()}
    keys |= known
    return [keys[trial.number] for trial in trials]


_finished: WeakKeyDictionary[optuna.Study, dict[int, Key]] = WeakKeyDictionary()
"""Parameters of finished trials by number: to make those of thousands takes long."""


def key_of(params: Params) -> Key:
    """Return parameters as something that sets can hold; True and 1 are two values."""
    # Steps of a range are added up in more than one way, and differ in the last digits.
    return frozenset(
        (name, type(value) is bool, float(f"{value:.12g}") if type(value) is float else value)
        for name, value in params.items()
    )
