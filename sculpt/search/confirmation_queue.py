"""The queue of the confirmation: the best candidates, the base and opponents, on fresh seeds.

The best of many is best by luck, too, and its validation error says less the more there were.
Here each of them is trained anew, with the seeds and the data order of the base, and its test
error is read once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sculpt.config import Confirm, Opponent
from sculpt.config.arms import with_arm
from sculpt.config.opponents import is_near
from sculpt.data import Spec
from sculpt.errors import ConfigError
from sculpt.search.opponents import opponent_setup
from sculpt.search.wanted_trials import queue_wanted
from sculpt.storage.store import OPPONENT, Store
from sculpt.storage.trials import Trials
from sculpt.trial_setup import TrialSetup, candidate_budget, candidate_macs, resolve_budget

BASE = "base"


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


def best_dense(store: Store) -> list[str]:
    """Return the labels of the dense opponents to confirm: of each size of candidates the best.

    They are chosen as `best_candidates` are, among those that the study lists; others are there for
    the dense frontier.
    """
    if store.opponents is None:
        return []
    candidates = store.candidates.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = store.opponents.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials.sort(key=lambda t: (t.user_attrs["val_error_mean"], t.user_attrs["kept_macs"]))
    listed = {opponent.label: opponent.model_dump() for opponent in store.config.opponents}
    dense = {}
    for trial in trials:
        opponent = Opponent.model_validate(trial.user_attrs[OPPONENT])
        if opponent.name == "dense" and listed.get(opponent.label) == opponent.model_dump():
            dense[opponent.label] = trial.user_attrs
    best, by_macs = set[str](), store.config.counts_macs
    for candidate in candidates:
        for label, found in dense.items():  # best first
            if is_near(found, candidate.user_attrs, by_macs=by_macs):
                best.add(label)
                break
    return [label for label in dense if label in best]


def queue_confirmation(store: Store, *, dry: bool = False) -> int:
    """Queue the missing confirmation trials, or only count them, and return how many are left to
    run.

    Any number of workers may call this when the search has ended.
    """
    if store.config.search.confirm is None or store.confirmation is None:
        return 0
    trials = store.trials(store.confirmation)
    if not dry:
        trials.requeue()  # or one that was interrupted would come back after it was withdrawn
    # Repeated from the start if a server's connection is lost: trials already queued are seen.
    return trials.storage.patience(_queue, store, store.config.search.confirm, trials, dry)


def _queue(store: Store, settings: Confirm, trials: Trials, dry: bool) -> int:
    with trials.storage.lock():
        selected, dense = best_candidates(store, settings), best_dense(store)
        arms = ["sculpted", *settings.controls]
        wanted: list[tuple[int | str, str]] = [(BASE, "sculpted")]
        wanted += [(label, "dense") for label in dense]
        wanted += [(number, arm) for number in selected for arm in arms]
        if not dry:
            trials.study.set_user_attr("selected", selected)
            trials.study.set_user_attr("seeds", settings.seeds)
            if dense or "dense" in trials.study.user_attrs:
                trials.study.set_user_attr("dense", dense)
        attributes = [
            {"candidate": candidate, "arm": arm, "seeds": settings.seeds}
            for candidate, arm in wanted
        ]
        return queue_wanted(trials, attributes, dry=dry, current=store.is_current)


def confirmation_setup(store: Store, attributes: Mapping[str, int | str], spec: Spec) -> TrialSetup:
    """Return the setup of a queued trial, by the user attributes that it was queued with."""
    config = store.config
    candidate, arm = attributes["candidate"], str(attributes["arm"])
    first = config.search.seed + config.search.replicates  # the search did not use these seeds
    label = f"confirm {candidate}"
    if candidate == BASE:
        setup = TrialSetup(label, config, "base", {}, resolve_budget(config, spec), ())
    elif isinstance(candidate, str):
        listed = {opponent.label: opponent for opponent in config.opponents}
        if candidate not in listed:
            raise ConfigError(f"opponents: must list {candidate!r} to confirm it, but do not")
        setup = replace(opponent_setup(config, listed[candidate], spec), label=label)
    else:
        params = store.candidates.get_trials(deepcopy=False)[candidate].params
        study = config.with_parameters(params)
        budget = candidate_budget(config, study, spec)
        label += "" if arm == "sculpted" else f" {arm}"
        study, macs = with_arm(study, arm), candidate_macs(config, study, spec)
        setup = TrialSetup(label, study, "candidate", params, budget, (), macs=macs)
    seeds = range(first, first + int(attributes["seeds"]))
    return replace(setup, seeds=seeds, read_test=True, confirms=candidate, arm=arm)
