"""Arms of a comparison: a study with its networks pruned in another way, and all else as it was."""

from collections.abc import Callable
from typing import Any

from sculpt.config import Choice, Study
from sculpt.config.training import STATIC


def with_arm(study: Study, arm: str) -> Study:
    """Return a study whose networks are pruned as an arm says; others leave it as it is.

    Args:
        study: With the parameters of a network in place.
        arm: A kind of opponent, or the arm of a confirmation.
    """
    return _ARMS.get(arm, lambda study: study)(study)


def _shuffled(study: Study) -> Study:
    """Return a study with masks shuffled within the layers, and all else as it was."""
    criterion = study.pruning.criterion
    return _pruned(
        study, criterion=_criterion("shuffled", of=criterion.name, of_options=criterion.options)
    )


def _erk(study: Study) -> Study:
    # The criterion chooses the whole mask by itself, one weight at a time.
    return _pruned(study, criterion=_criterion("erk_random"), **_SINGLE_WEIGHTS)


def _random(study: Study) -> Study:
    return _pruned(study, criterion=_criterion("random"))


def _gradual_magnitude(study: Study) -> Study:
    moving = study.training.moving.model_copy(update={"rule": "gradual_magnitude"})
    return _trained(_pruned(study, **_SINGLE_WEIGHTS), moving=moving)


def _magnitude_after_training(study: Study) -> Study:
    pruning = study.pruning
    changes = {
        "criterion": _criterion("magnitude"),
        # It starts as the base does; a repair, or weights drawn anew, would undo what was trained.
        "initializer": pruning.redraw or pruning.initializer,
        "repair": False,
        "redraw": False,
    }
    return _trained(_pruned(study, **changes, **_SINGLE_WEIGHTS), moving=STATIC)


_SINGLE_WEIGHTS = {
    "scope": "global",
    "granularity": "weight",
    "layer_budgets": None,
    "mac_exponent": 0.0,
    "effective": False,
}

_ARMS: dict[str, Callable[[Study], Study]] = {
    "shuffled": _shuffled,
    "erk": _erk,
    "random": _random,
    "gradual_magnitude": _gradual_magnitude,
    "magnitude_after_training": _magnitude_after_training,
}


def _criterion(name: str, **options: Any) -> Choice:
    return Choice.model_validate({"name": name} | options)


def _pruned(study: Study, **changes: Any) -> Study:
    return study.model_copy(update={"pruning": study.pruning.model_copy(update=changes)})


def _trained(study: Study, **changes: Any) -> Study:
    return study.model_copy(update={"training": study.training.model_copy(update=changes)})
