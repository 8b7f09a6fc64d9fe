"""The queue of the confirmation: the best candidates and the base once more, on fresh seeds.

The best of many is best by luck, too, and its validation error says less the more there were.
Here each of them is trained anew, with the seeds and the data order of the base, and its test
error is read once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sculpt.config import Choice, Confirm, Study
from sculpt.data import Spec
from sculpt.storage.store import Store
from sculpt.storage.trials import Trials, trial_states
from sculpt.trial_setup import TrialSetup, candidate_budget, resolve_budget

BASE = "base"

KEY = ("candidate", "arm", "seeds")
"""Attributes of a trial that say what it confirms: a candidate's number or `base`, `sculpted` or
`shuffled`, and the number of seeds."""


def best_candidates(store: Store, settings: Confirm) -> list[int]:
    """Return the numbers of the candidates to confirm, of each budget by mean validation error.

    They are the best `top`, and the best `cheap` of those that keep no more multiply-accumulates
    than the base. At equal error the one that keeps fewer is taken, then the earlier.
    """
    complete = (TrialState.COMPLETE,)
    bases = store.base.get_trials(deepcopy=False, states=complete)
    most = bases[0].user_attrs["kept_macs"] if bases else 0  # before it has finished: none
    trials = store.candidates.get_trials(deepcopy=False, states=complete)
    trials.sort(key=lambda t: (t.user_attrs["val_error_mean"], t.user_attrs["kept_macs"]))
    budgets: dict[Any, list[FrozenTrial]] = {}
    for trial in trials:
        # A budget that is a share is one budget, though every network has another number.
        budgets.setdefault(trial.params.get("budget"), []).append(trial)
    chosen = []
    for rows in budgets.values():
        cheap = [t for t in rows if t.user_attrs["kept_macs"] <= most]
        wanted = {t.number for t in rows[: settings.top] + cheap[: settings.cheap]}
        chosen += [t.number for t in rows if t.number in wanted]
    return chosen


def queue_confirmation(store: Store, *, dry: bool = False) -> int:
    """Queue the missing confirmation trials, or only count them, and return how many are left to
    run.

    Any number of workers may call this when the search has ended.
    """
    if store.config.search.confirm is None or store.confirmation is None:
        return 0
    trials = store.trials(store.confirmation)
    # Repeated from the start if a server's connection is lost: trials already queued are seen.
    return trials.storage.patience(_queue, store, store.config.search.confirm, trials, dry)


def _queue(store: Store, settings: Confirm, trials: Trials, dry: bool) -> int:
    with trials.storage.lock():
        selected = best_candidates(store, settings)
        arms = ["sculpted"] + ([settings.control] if settings.control else [])
        wanted: list[tuple[int | str, str, int]] = [(BASE, "sculpted", settings.seeds)]
        wanted += [(number, arm, settings.seeds) for number in selected for arm in arms]
        found = trials.read()
        states = trial_states(found)
        keys = [tuple(trial.user_attrs[name] for name in KEY) for trial in found]
        state_of = dict(zip(keys, states.values(), strict=True))  # the last attempt's
        if not dry:
            trials.study.set_user_attr("selected", selected)
            trials.study.set_user_attr("seeds", settings.seeds)
            for key in wanted:
                if state_of.get(key, "failed") == "failed":  # or was never queued
                    attributes = dict(zip(KEY, key, strict=True))
                    trials.study.enqueue_trial({}, user_attrs=attributes)
    return sum(state_of.get(key) != "complete" for key in wanted)


def confirmation_setup(store: Store, attributes: Mapping[str, int | str], spec: Spec) -> TrialSetup:
    """Return the setup of a queued trial, by the user attributes that it was queued with."""
    config = store.config
    candidate, arm = attributes["candidate"], str(attributes["arm"])
    first = config.search.seed + config.search.replicates  # the search did not use these seeds
    setup = TrialSetup(
        label=f"confirm {candidate}",
        study=config,
        role="base",
        params={},
        budget=resolve_budget(config, spec),
        seeds=range(first, first + int(attributes["seeds"])),
        read_test=True,
        confirms=candidate,
        arm=arm,
    )
    if candidate == BASE:
        return setup
    params = store.candidates.get_trials(deepcopy=False)[int(candidate)].params
    study = config.with_parameters(params)
    budget, label = candidate_budget(config, study, spec), setup.label
    if arm == "shuffled":
        study, label = shuffled(study), f"{label} shuffled"
    return replace(setup, label=label, study=study, role="candidate", params=params, budget=budget)


def shuffled(study: Study) -> Study:
    """Return a candidate with its mask shuffled within the layers, and all else as it was."""
    criterion = study.pruning.criterion
    control = Choice.model_validate(
        {"name": "shuffled", "of": criterion.name, "of_options": criterion.options}
    )
    pruning = study.pruning.model_copy(update={"criterion": control})
    return study.model_copy(update={"pruning": pruning})
