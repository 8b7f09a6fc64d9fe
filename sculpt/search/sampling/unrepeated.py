"""A sampler that proposes whole configurations, and none that the study already holds."""

import copy
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from sculpt.config import Params, Space
from sculpt.search.sampling.space import distribution, is_enumerable, points
from sculpt.seeding import derive_seed
from sculpt.storage.attributes import DRAWN, INFEASIBLE
from sculpt.storage.optuna_names import set_system_attribute
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

    A draw depends on the study's seed, the place of the trial among the trials, and the results so
    far: not on the process, nor on how often a trial was begun. It is written down as a whole, so
    that a trial whose worker is killed in the middle goes on with it.

    Args:
        space: The search space.
        seed: The study's.
        propose: Returns the sampler that is asked for the trial at a place; without one, points of
            the space are taken that nobody took.
        shuffled: Take such points in a random order, rather than in the space's.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        propose: Callable[[int], BaseSampler] | None = None,
        *,
        shuffled: bool = True,
    ):
        self._space, self._seed = space, seed
        self._propose, self._shuffled = propose, shuffled
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
            seed = derive_seed(self._seed, param_name, place_of(study, trial)) % 2**32
            chance = RandomSampler(seed=seed)
            return chance.sample_independent(study, trial, param_name, param_distribution)
        if trial.number not in self._drawn:
            drawn = trial.system_attrs.get(DRAWN)
            if drawn is None:
                drawn = self._draw(study, trial)
                set_system_attribute(study, trial, DRAWN, drawn)
            self._drawn = {trial.number: drawn}
        return self._drawn[trial.number][param_name]

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        if self._propose:
            place = place_of(study, trial)
            self._propose(place).after_trial(study, trial, state, values)

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> Params:
        """Return a whole configuration that agrees with what the trial was queued with."""
        place, origin = place_of(study, trial), original_number(trial)
        trials = study.get_trials(deepcopy=False)
        keys = zip(trials, keys_of(study, trials), strict=True)
        taken = {key for other, key in keys if original_number(other) != origin}
        given = key_of(trial.params)
        # A stream of its own: the other sampler may begin with the very draws of its seed.
        chance = RandomSampler(seed=derive_seed(self._seed, "chance", place) % 2**32)
        for sampler in (self._propose(place), chance) if self._propose else ():
            for _ in range(PROPOSALS):
                params = self._ask(sampler, study, trial, {})
                if key_of(params) not in taken and given <= key_of(params):
                    return params
        if not is_enumerable(self._space):
            return self._ask(chance, study, trial, trial.params)
        # The place says where in one order to look first: a trial that is begun again takes what
        # it would have taken, whatever others have taken meanwhile.
        possible = list(points(self._space))
        if self._shuffled:
            order = np.random.default_rng(derive_seed(self._seed, "order"))
            possible = [possible[index] for index in order.permutation(len(possible))]
        first = place % len(possible)
        possible = [p for p in possible[first:] + possible[:first] if given <= key_of(p)]
        return next((point for point in possible if key_of(point) not in taken), possible[0])

    def _ask(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, given: Params
    ) -> Params:
        """Walk through the space as Optuna's trials do, on a trial that is not written down."""
        draft = copy.copy(trial)
        draft.params, draft.distributions = {}, {}
        related = sampler.infer_relative_search_space(study, draft)
        drawn = sampler.sample_relative(study, draft, related) | given
        for key in self._space.parameters:
            if not self._space.is_active(key, draft.params):
                continue
            allowed = distribution(self._space, key)
            if key in drawn:
                value = drawn[key]
            else:
                value = sampler.sample_independent(study, draft, key, allowed)
            draft.distributions[key] = allowed
            draft.params[key] = value
        return draft.params


def place_of(study: optuna.Study, trial: FrozenTrial) -> int:
    """Return the number of trials before this one, each counted once however often it was begun."""
    origin = original_number(trial)
    earlier = study.get_trials(deepcopy=False)[:origin]
    return len({original_number(other) for other in earlier})


def draw_seed(seed: int, place: int) -> int:
    """Return the seed of the draw at a place, of 32 bits."""
    return derive_seed(seed, "sampler", place) % 2**32


def first_with(params: Params, trial: optuna.Trial) -> int | None:
    """Return the number of an earlier trial of the same configuration, or None.

    There is one only where a worker was killed, or lost the lock, between a draw and its being
    written down in full: others may have drawn the same by then. Trials that were refused
    themselves do not count.
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
