"""Trained networks that stay among the artifacts: they are most of what a study takes on disk."""

import warnings
from contextlib import suppress

import numpy as np
import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sculpt.dominance import non_dominated
from sculpt.errors import SculptWarning
from sculpt.search.artifacts.location import FILES, RECORD_FILE
from sculpt.search.store import Store


def discard_networks(store: Store, study: optuna.Study, trial: FrozenTrial) -> None:
    """Remove the networks that a study does not keep (`search.networks`), now that a trial ended.

    Under `front` a candidate's networks stay as long as no other of its budget dominates it, and
    those of the base; the confirmation's go. Several workers may do this at once: at worst a
    network stays too long. What cannot be removed is a warning, because it does no harm.

    Args:
        store: Of the study.
        study: Its Optuna study that the trial belongs to.
        trial: Complete, and so written down.
    """
    for loser in _losers(store, study, trial):
        files: dict[str, str] = loser.system_attrs.get(FILES) or {}
        for name in files.keys() - {RECORD_FILE}:
            try:
                with suppress(ArtifactNotFound):
                    store.artifacts.remove(files[name])
            except Exception as error:  # drivers have errors of their own
                warnings.warn(
                    f"{name} of trial {loser.number} cannot be removed from "
                    f"{store.artifacts.location} ({error}); the study goes on",
                    SculptWarning,
                    stacklevel=2,
                )


def _losers(store: Store, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
    policy = store.config.search.networks
    if policy == "all" or (policy == "front" and study.study_name == store.base.study_name):
        return []
    if policy == "none" or study.study_name != store.candidates.study_name:
        return [trial]
    budget = trial.params.get("budget")
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    others = [t for t in trials if t.number != trial.number and t.params.get("budget") == budget]
    if not others:
        return []
    signs = [1 if direction is StudyDirection.MINIMIZE else -1 for direction in study.directions]
    values = np.array([t.values for t in [*others, trial]], dtype=float) * signs
    *still, own = non_dominated(values)
    if not own:
        return [trial]
    # Those that were on the front until now; the rest lost theirs before.
    before = non_dominated(values[:-1])
    return [others[index] for index in np.flatnonzero(before & ~np.array(still))]
