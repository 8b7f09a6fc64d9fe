"""Optuna's samplers, by the names that a study gives them."""

from collections.abc import Callable, Container
from typing import Any

import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sculpt.config import Study
from sculpt.errors import ConfigError
from sculpt.search.sampling.space import MOST_POINTS, is_enumerable, space_size
from sculpt.search.sampling.unrepeated import UnrepeatedSampler
from sculpt.seeding import derive_seed
from sculpt.storage.attributes import ERROR
from sculpt.storage.optuna_names import experimental_accepted
from sculpt.storage.study_storage import DelegatingStorage

TPE_TRIALS = 1000
"""More are for NSGA: TPE's time for a proposal grows with all the trials before it."""

TPE_OBJECTIVES = 3
"""More are for NSGA-III: TPE ranks trials by hypervolume, whose cost explodes with them."""


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


def make_sampler(
    study: Study, storage: BaseStorage, trials_before: int, worker: int = 0
) -> BaseSampler:
    """Return the study's sampler, which never proposes a configuration again.

    `random` draws from a space that can be enumerated without replacement, as `brute_force` does.

    Args:
        study: The study.
        storage: Storage of its trials.
        trials_before: A resumed study must not draw the values of its trials again.
        worker: Number among those that start at once; they must not draw the same values either.

    Raises:
        ConfigError: The sampler does not fit the space; see `resolve_sampler`.
    """
    name = resolve_sampler(study)
    if name == "random" and is_enumerable(study.space):
        name = "brute_force"
    stream = f"sampler of worker {worker}" if worker else "sampler"
    seed = derive_seed(study.search.seed, stream, trials_before) % 2**32
    proposing: BaseSampler | None = None
    with experimental_accepted():
        if name == "brute_force":
            proposing = InterruptibleBruteForce(storage, seed)
        elif name != "grid":
            proposing = _PROPOSING[name](study, seed)
    return UnrepeatedSampler(study.space, proposing, seed)


class InterruptibleBruteForce(samplers.BruteForceSampler):
    """Optuna's sampler, which takes every trial that has ended for one that knew all its values.

    One that was killed before it had drawn them, or any, would make it refuse the whole space. It
    is shown the others alone, as they are in the storage.
    """

    def __init__(self, storage: BaseStorage, seed: int) -> None:
        super().__init__(seed=seed)
        self._whole_trials = _WholeTrials(storage)  # type: ignore[abstract]
        self._views: dict[str, optuna.Study] = {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        name = study.study_name
        if name not in self._views:
            self._views[name] = optuna.load_study(study_name=name, storage=self._whole_trials)
        return super().sample_independent(self._views[name], trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, *ended: Any) -> None:
        """Do nothing: the study says itself when there are enough trials."""


class _WholeTrials(DelegatingStorage):
    """Leaves out trials that failed without an error of their own: they were interrupted."""

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        found = self._backend.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [t for t in found if t.state is not TrialState.FAIL or ERROR in t.user_attrs]


def _tpe(study: Study, seed: int) -> BaseSampler:
    # Parameters belong together: how deep to go depends on how wide. Groups keep that up where
    # conditions leave some out.
    conditional = bool(study.space.conditions)
    return samplers.TPESampler(seed=seed, multivariate=True, group=conditional)


def _quasi_random(study: Study, seed: int) -> BaseSampler:
    # One sequence for all workers and runs, which share the place in it through the storage.
    sequence = derive_seed(study.search.seed, "quasi-random") % 2**32
    return samplers.QMCSampler(scramble=True, seed=sequence, warn_independent_sampling=False)


_PROPOSING: dict[str, Callable[[Study, int], Any]] = {
    "random": lambda study, seed: samplers.RandomSampler(seed=seed),
    "quasi_random": _quasi_random,
    "tpe": _tpe,
    "nsga2": lambda study, seed: samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda study, seed: samplers.NSGAIIISampler(seed=seed),
    "gp": lambda study, seed: samplers.GPSampler(seed=seed, warn_independent_sampling=False),
}
