"""Optuna's samplers, by the names that a study gives them."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from sculpt.config import Study
from sculpt.errors import ConfigError
from sculpt.search.sampling.space import (
    MOST_POINTS,
    distribution,
    is_enumerable,
    space_size,
)
from sculpt.search.sampling.unrepeated import UnrepeatedSampler, draw_seed
from sculpt.seeding import derive_seed
from sculpt.storage.optuna_names import experimental_accepted

TPE_TRIALS = 1000
"""More are for NSGA: TPE's time for a proposal grows with all the trials before it."""

TPE_OBJECTIVES = 3
"""More are for NSGA-III: TPE ranks trials by hypervolume, whose cost explodes with them."""

SKIPPED_PLACES = 2**16
"""From a proposal of the quasi-random sequence that is taken to the next one."""


def resolve_sampler(study: Study) -> str:
    """Return the name of the study's sampler; `auto` goes by the space and the objectives.

    A search of at least half of a small space has nothing to learn that is worth more than
    seeing the other half: `brute_force`. Otherwise `tpe`, and `nsga2` or `nsga3` where there
    are very many trials or objectives.

    Raises:
        ConfigError: `brute_force` or `grid` is asked of a space that cannot be enumerated.
    """
    search = study.search
    enumerable = is_enumerable(study.space)
    if search.sampler in ("brute_force", "grid") and not enumerable:
        raise ConfigError(
            f"search.sampler: {search.sampler} must have at most {MOST_POINTS} points to go "
            f"through, but the space has {space_size(study.space) or 'infinitely many'}; give "
            "its ranges steps, or use another sampler"
        )
    if search.sampler != "auto":
        return search.sampler
    size = space_size(study.space) if enumerable else None
    if size and (search.trials == "all" or 2 * (search.trials - 1) >= size):
        return "brute_force"
    if len(search.objectives) > TPE_OBJECTIVES:
        return "nsga3"
    many = search.trials == "all" or search.trials > TPE_TRIALS
    return "nsga2" if many and len(search.objectives) > 1 else "tpe"


def make_sampler(study: Study) -> UnrepeatedSampler:
    """Return the study's sampler, which never proposes a configuration again.

    Each draw has a seed of its own, by the number of trials before it: a study that is stopped and
    resumed draws what an uninterrupted one draws, and workers that draw at one moment differ.
    `random` draws from a space that can be enumerated without replacement, as `brute_force` does.

    Raises:
        ConfigError: The sampler does not fit the space; see `resolve_sampler`.
    """
    name, seed = resolve_sampler(study), study.search.seed
    if name == "grid":
        return UnrepeatedSampler(study.space, seed, shuffled=False)
    if name == "brute_force" or (name == "random" and is_enumerable(study.space)):
        return UnrepeatedSampler(study.space, seed)

    def propose(draw: int) -> BaseSampler:
        with experimental_accepted():
            return _PROPOSING[name](study, draw)

    return UnrepeatedSampler(study.space, seed, propose)


class QuasiRandomSampler(samplers.QMCSampler):
    """Sobol's sequence over all of a space, at the place of a trial.

    Optuna's has a place that every draw moves on, also one that comes to nothing, and the space of
    the first trial, which may have been cut off.
    """

    def __init__(self, study: Study, draw: int) -> None:
        sequence = derive_seed(study.search.seed, "quasi-random") % 2**32
        super().__init__(scramble=True, seed=sequence, warn_independent_sampling=False)
        self._space, self._place = study.space, draw

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {key: distribution(self._space, key) for key in self._space.parameters}

    def _find_sample_id(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution]
    ) -> int:
        place, self._place = self._place, self._place + SKIPPED_PLACES
        return place


def _tpe(study: Study, draw: int) -> BaseSampler:
    # Parameters belong together: how deep to go depends on how wide. Groups keep that up where
    # conditions leave some out.
    conditional = bool(study.space.conditions)
    seed = draw_seed(study.search.seed, draw)
    return samplers.TPESampler(seed=seed, multivariate=True, group=conditional)


def _seeded(kind: Callable[..., BaseSampler], **options: Any) -> Callable[[Study, int], Any]:
    return lambda study, draw: kind(seed=draw_seed(study.search.seed, draw), **options)


_PROPOSING: dict[str, Callable[[Study, int], BaseSampler]] = {
    "random": _seeded(samplers.RandomSampler),
    "quasi_random": QuasiRandomSampler,
    "tpe": _tpe,
    "nsga2": _seeded(samplers.NSGAIISampler),
    "nsga3": _seeded(samplers.NSGAIIISampler),
    "gp": _seeded(samplers.GPSampler, warn_independent_sampling=False),
}
"""Samplers for the draw of one trial, by its place among the trials."""
