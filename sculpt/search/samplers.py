"""Samplers by the names that a study gives them."""

import optuna

from sculpt.config import Study
from sculpt.search.experimental import experimental_accepted
from sculpt.search.space import is_enumerable
from sculpt.seeding import derive_seed


def make_sampler(study: Study, trials_before: int, worker: int = 0) -> optuna.samplers.BaseSampler:
    """Return the study's sampler.

    Args:
        study:
            Only `random` exists so far. Over a space that can be enumerated it draws without
            replacement (Optuna's BruteForceSampler, which draws leaves at random), so no
            configuration is run twice.
        trials_before:
            Trials there are already. A resumed study must not draw the same values again.
        worker:
            Number among those that start at once; they must not draw the same values either.
    """
    name = f"sampler of worker {worker}" if worker else "sampler"
    seed = derive_seed(study.search.seed, name, trials_before) % 2**32
    if is_enumerable(study.space):
        with experimental_accepted():
            return optuna.samplers.BruteForceSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)
