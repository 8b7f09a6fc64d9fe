"""How fast a network is trained: sculpt's own loop, and in turns with it the standard one."""

import copy
from dataclasses import dataclass, replace
from math import ceil
from statistics import median
from time import perf_counter

from torch import nn

from sculpt.benchmark.opponent import Opponent
from sculpt.compaction import compact_where_it_pays
from sculpt.config import Training
from sculpt.data import Splits
from sculpt.pruning.masks import Masks
from sculpt.training.capture import FEWEST_STEPS as FEWEST_CAPTURED
from sculpt.training.loop import train
from sculpt.training.memory import keep_freed_memory

FEWEST_STEPS = 2
"""Of a measured epoch, however slow the network."""

SAFE_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Rates:
    """Images per second, one entry per turn."""

    sculpt: list[float]
    standard: list[float]
    """Empty where it was not asked for."""
    trained: nn.Module
    """The network as sculpt trained it: compact, where that pays."""
    seconds_to_compact: float

    @property
    def ratio(self) -> float:
        """Median over the turns of sculpt's rate over the standard one's in the same turn."""
        return median(a / b for a, b in zip(self.sculpt, self.standard, strict=True))


def race(
    model: nn.Module,
    masks: Masks,
    splits: Splits,
    recipe: Training,
    *,
    repeats: int,
    steps: int | None = None,
    seconds: float = 2.0,
    opponent: Opponent | None = None,
) -> Rates:
    """Measure the rate of training, whole data path included, on a sample of the images.

    Each turn trains two epochs (or a few more, see `train_rate`) and reads the last, so that
    warming up is not counted. The two loops take turns, so that what else the machine does hits
    both.

    Args:
        model:
            On the device of the images; it is left as it is.
        masks:
            Keyed by parameter name.
        splits:
            As for training.
        recipe:
            As of the study.
        repeats:
            Turns.
        steps:
            Of an epoch; there are never more than the images give.
        seconds:
            Where `steps` is left out: what an epoch of sculpt's should take, about.
        opponent:
            The standard loop's process, to take turns with.
    """
    keep_freed_memory()  # as the process of a study does
    start = perf_counter()
    trained, kept = as_trained(model, masks, splits, recipe)
    seconds_to_compact = perf_counter() - start
    if steps is None:
        first_try = train_rate(trained, kept, _sample(splits, recipe, FEWEST_STEPS), recipe)
        steps = max(FEWEST_STEPS, round(seconds * first_try / _batch_size(splits, recipe)))
    sample = _sample(splits, recipe, steps)
    if opponent is not None:
        opponent.prepare(model, masks, sample, _shortened(recipe, epochs=2))
    rates = Rates([], [], trained, seconds_to_compact)
    for _ in range(repeats):
        rates.sculpt.append(train_rate(trained, kept, sample, recipe))
        if opponent is not None:
            rates.standard.append(opponent.images_per_second())
    return rates


def as_trained(
    model: nn.Module, masks: Masks, splits: Splits, recipe: Training
) -> tuple[nn.Module, Masks]:
    """Return a copy of a network, and its masks, as `sculpt.trial.run_seed` trains them."""
    if recipe.compact and not all(mask.all() for mask in masks.values()):
        compaction, _ = compact_where_it_pays(model, masks, splits.train.inputs(slice(2)))
        if compaction is not None:
            return compaction.model, compaction.masks
    return copy.deepcopy(model), masks


def train_rate(model: nn.Module, masks: Masks, splits: Splits, recipe: Training) -> float:
    """Train a copy for a few epochs as a trial does; return images per second of the last."""
    epochs, device = 2, splits.train.device
    if device.type == "cuda":
        # As many as a run must have for its steps to be captured, if the study's has as many.
        steps = len(splits.train) // _batch_size(splits, recipe)
        epochs = max(epochs, min(recipe.epochs, ceil(FEWEST_CAPTURED / steps)))
    short = _shortened(recipe, epochs)
    rate = train(copy.deepcopy(model), masks, splits, short, seed=0).history[-1].images_per_second
    assert rate is not None, "an epoch was trained"
    return rate


def images_trained_on(splits: Splits, recipe: Training) -> int:
    """Return how many images a whole run trains on: every epoch without its unfinished batch."""
    batch_size = _batch_size(splits, recipe)
    return recipe.epochs * (len(splits.train) // batch_size) * batch_size


def _shortened(recipe: Training, epochs: int) -> Training:
    """Return a recipe of a few epochs, evaluated once."""
    return recipe.model_copy(
        update={
            "epochs": epochs,
            "evaluate_every": epochs,
            "protocol": "validation",
            # Speed does not depend on it, and a run without the slow start of the study's
            # schedule should not diverge.
            "learning_rate": min(recipe.learning_rate, SAFE_LEARNING_RATE),
        }
    )


def _sample(splits: Splits, recipe: Training, steps: int) -> Splits:
    batch_size = _batch_size(splits, recipe)
    return replace(
        splits,
        train=splits.train.sample(steps * batch_size, seed=0),
        validation=splits.validation.sample(batch_size, seed=0),
    )


def _batch_size(splits: Splits, recipe: Training) -> int:
    return min(recipe.batch_size, len(splits.train))
