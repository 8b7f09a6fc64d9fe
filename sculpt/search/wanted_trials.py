"""Queues of trials that are named beforehand: opponents, and confirmations."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import TrialState

from sculpt.storage.trials import Trials, trial_states

Wanted = Mapping[str, Any]
"""User attributes that a trial is queued with, and known by."""


def queue_wanted(
    trials: Trials, wanted: Sequence[Wanted], *, dry: bool = False, current: bool = True
) -> int:
    """Queue the wanted trials that are missing, or only count them; return how many are left to
    run. Those that failed are tried again.

    The caller holds the lock of the storage. Of other trials than wanted, those that are queued are
    withdrawn, if this process knows the current settings; when they are wanted again they begin
    anew.
    """
    found = trials.read()
    states = trial_states(found)
    names = {name for attributes in wanted for name in attributes}
    keys = [_key({name: trial.user_attrs.get(name) for name in names}) for trial in found]
    state_of = dict(zip(keys, states.values(), strict=True))  # the last attempt's
    if not dry:
        known = set(map(_key, wanted))
        for trial, key in zip(found, keys, strict=True):
            if current and trial.state is TrialState.WAITING and key not in known:
                trials.withdraw(trial.number, "the study asks for it no longer")
        for attributes in wanted:
            if state_of.get(_key(attributes), "failed") == "failed":  # or was never queued
                trials.study.enqueue_trial({}, user_attrs=dict(attributes))
    return sum(state_of.get(_key(attributes)) != "complete" for attributes in wanted)


def _key(attributes: Wanted) -> str:
    return json.dumps(attributes, sort_keys=True)
