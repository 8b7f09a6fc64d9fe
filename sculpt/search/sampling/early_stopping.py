"""Early stopping of candidates: rungs over epochs, and a proxy that needs no training.

Asynchronous successive halving in its stopping form (Li et al. 2018, *A System for Massively
Parallel Hyperparameter Tuning*; several brackets: Li et al. 2017, *Hyperband*). Optuna's own
pruners refuse studies of several objectives. Here the front stays over all of them, and a rung
judges by the validation error, by default alone, or along with costs that are known before
training: then a candidate counts as beaten only by one that is nowhere worse.
"""

import math
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from sculpt.config import EarlyStopping, Training
from sculpt.dominance import dominates
from sculpt.quantities import badness
from sculpt.record import Epoch, SculptedRecord
from sculpt.registry import OBJECTIVES
from sculpt.storage.trials import original_number
from sculpt.units import ERROR, Metric

RUNGS = "rungs"
"""User attribute of a candidate: epochs -> validation error of its first seed at that rung."""

COSTS = "judged_costs"
"""User attribute of a candidate: costs of its first seed that are judged along with the error."""

PROXY = "judged_proxy"
"""User attribute of a candidate: the proxy of its first seed; lower is better."""


class Stopped(optuna.TrialPruned):
    """The candidate is not worth more of the budget.

    Attributes:
        epochs: Epochs that it was trained for; 0 if it was judged by a proxy.
    """

    def __init__(self, epochs: int, reason: str):
        super().__init__(reason)
        self.epochs = epochs


class EarlyStopper:
    """Judges one candidate of a study, with its own recipe, by those before it."""

    def __init__(
        self,
        settings: EarlyStopping,
        training: Training,
        trial: optuna.Trial,
        metric: Metric = ERROR,
    ):
        self._settings, self._trial, self._metric = settings, trial, metric
        attempt = trial.study.get_trials(deepcopy=False)[trial.number]
        self._origin = original_number(attempt)
        self._rungs = rung_epochs(settings, training, self._origin % settings.brackets)
        # A retry goes on from a checkpoint, and is not judged again where it has been.
        self._passed: dict[str, float] = dict(attempt.user_attrs.get(RUNGS, {}))
        self._proxy_passed = PROXY in attempt.user_attrs

    def on_sculpted(self, record: SculptedRecord) -> None:
        """Judge the candidate by the proxy, if there is one, before its first seed is trained;
        raise `Stopped` if too few of those before were worse."""
        names = [name for name in self._settings.objectives if name != "val_error"]
        self._trial.set_user_attr(COSTS, [_signed(name, record) for name in names])
        proxy = self._settings.proxy
        if proxy is None or self._proxy_passed:
            return
        value = badness(proxy, record)
        self._trial.set_user_attr(PROXY, value)
        others = [[other.user_attrs[PROXY]] for other in self._others(PROXY)]
        if reason := reason_to_stop([value], others, self._settings.keep):
            raise Stopped(0, f"before training: {proxy} {reason}")

    def on_epoch(self, epoch: Epoch) -> None:
        """Judge the candidate if it has reached a rung; raise `Stopped` if it is not among the best
        `1 / factor` there.

        One that diverged is trained no more, and judged as it is at the next rung.
        """
        diverged = epoch.train_loss is None or epoch.val_loss is None
        reached = [r for r in self._rungs if r == epoch.epoch or (diverged and r > epoch.epoch)]
        rung = str(reached[0]) if reached else ""
        if not rung or rung in self._passed:
            return
        self._passed[rung] = epoch.val_error
        self._trial.set_user_attr(RUNGS, self._passed)
        own = [epoch.val_error, *self._trial.user_attrs[COSTS]]
        others = [
            [other.user_attrs[RUNGS][rung], *other.user_attrs[COSTS]]
            for other in self._others(RUNGS)
            if rung in other.user_attrs[RUNGS]
        ]
        if reason := reason_to_stop(own, others, 1 / self._settings.factor):
            end = f"diverged in epoch {epoch.epoch}" if diverged else f"after epoch {rung}"
            found = f"val {self._metric.name} {self._metric.short(own[0])}"
            raise Stopped(epoch.epoch, f"{end}: {found} {reason}")

    def _others(self, attribute: str) -> list[FrozenTrial]:
        """Return the last attempt at each other candidate that it can be compared with."""
        brackets, budget = self._settings.brackets, self._trial.params.get("budget")
        found = {
            original_number(other): other
            for other in self._trial.study.get_trials(deepcopy=False)
            if attribute in other.user_attrs and other.params.get("budget") == budget
        }
        return [
            other
            for origin, other in found.items()
            if origin != self._origin and origin % brackets == self._origin % brackets
        ]


def rung_epochs(settings: EarlyStopping, training: Training, bracket: int = 0) -> list[int]:
    """Return the epochs after which a candidate is judged, each of them one that is evaluated."""
    rungs = []
    epochs = settings.first_rung * settings.factor**bracket
    while epochs < training.epochs:
        evaluated = math.ceil(epochs / training.evaluate_every) * training.evaluate_every
        if evaluated < training.epochs and evaluated not in rungs:
            rungs.append(evaluated)
        epochs *= settings.factor
    return rungs


def expected_seeds(settings: EarlyStopping | None, training: Training, replicates: int) -> float:
    """Return the average cost of a candidate, in whole trainings of one seed.

    Assumes that one in `factor` goes on at each rung, and `keep` of them past a proxy; the cost of
    pruning is not counted.
    """
    if settings is None:
        return replicates
    total = 0.0
    for bracket in range(settings.brackets):
        left, before = settings.keep if settings.proxy else 1.0, 0
        for rung in rung_epochs(settings, training, bracket):
            total += left * (rung - before) / training.epochs
            left, before = left / settings.factor, rung
        total += left * (1 - before / max(1, training.epochs) + replicates - 1)
    return total / settings.brackets


def reason_to_stop(
    own: Sequence[float], others: Sequence[Sequence[float]], share: float
) -> str | None:
    """Return why a candidate is not among the best share of all, itself included, or None if it is.

    By values of which lower is better; of several each, as many are better as dominate it. The
    first ones to come are judged by few: one is always let through, the best so far.
    """
    better = int(dominates(np.array(others).reshape(-1, len(own)), np.array(own)).sum())
    count = len(others) + 1
    if better < max(1, math.floor(share * count + 1e-9)):
        return None
    return f"is beaten by {better} of {len(others)}, and 1 in {1 / share:.3g} goes on"


def _signed(name: str, record: SculptedRecord) -> float:
    objective = OBJECTIVES.get(name)
    value = float(objective.read(record))
    return value if objective.direction == "minimize" else -value
