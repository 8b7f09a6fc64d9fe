"""Queues of trials that are named beforehand: opponents, and confirmations."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sculpt.storage.trials import Trials, trial_states

Wanted = Mapping[str, Any]
"""User attributes that a trial is queued with, and known by."""


def queue_wanted(trials: Trials, wanted: Sequence[Wanted], *, dry: bool = False) -> int:
    """Queue the wanted trials that are missing, or only count them; return how many are left to
    run. Those that failed are tried again.

    The caller holds the lock of the storage. Other trials than wanted are left alone.
    """
    found = trials.read()
    states = trial_states(found)
    names = {name for attributes in wanted for name in attributes}
    keys = [_key({name: trial.user_attrs.get(name) for name in names}) for trial in found]
    state_of = dict(zip(keys, states.values(), strict=True))  # the last attempt's
    if not dry:
        for attributes in wanted:
            if state_of.get(_key(attributes), "failed") == "failed":  # or was never queued
                trials.study.enqueue_trial({}, user_attrs=dict(attributes))
    return sum(state_of.get(_key(attributes)) != "complete" for attributes in wanted)


def _key(attributes: Wanted) -> str:
    return json.dumps(attributes, sort_keys=True)
