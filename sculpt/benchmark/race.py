"""Training rates of sculpt's loop and, in turns with it, of the standard one."""

import copy
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from multiprocessing import get_context
from statistics import median
from time import perf_counter

from torch import nn

from sculpt.compaction import compact_where_it_pays
from sculpt.config import Training
from sculpt.data import ImageSet, Splits
from sculpt.errors import SculptError
from sculpt.pruning.masks import Masks
from sculpt.training.capture import FEWEST_STEPS as FEWEST_CAPTURED
from sculpt.training.loop import train
from sculpt.training.memory import keep_freed_memory

FEWEST_STEPS = 2
"""Steps of a measured epoch, however slow the network."""

SAFE_LEARNING_RATE = 1e-3

Opponent = Callable[[nn.Module, Masks, ImageSet, Training], float]
"""Trains by the standard loop; returns images per second of the last epoch."""


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    repeats: int = 5
    """Turns; the median counts."""
    seconds: float = 2.0
    """Approximate length of a measured epoch of sculpt's."""
    steps: int | None = None
    """Steps of a measured epoch, in place of `seconds`; at most as many as the images allow."""


@dataclass(frozen=True)
class Rates:
    """Images per second, one entry per turn."""

    sculpt: list[float]
    standard: list[float]
    """Empty without an opponent."""
    trained: nn.Module
    """The network as sculpt trained it: compact, if that pays."""
    seconds_to_compact: float

    @property
    def ratio(self) -> float:
        """Median of sculpt's rate over the standard one's in the same turn."""
        return median(a / b for a, b in zip(self.sculpt, self.standard, strict=True))


def race(
    model: nn.Module,
    masks: Masks,
    splits: Splits,
    recipe: Training,
    effort: Effort,
    opponent: Opponent | None = None,
) -> Rates:
    """Measure the rate of training, whole data path included, on a sample of the images.

    Each turn trains two epochs (or a few more, see `train_rate`) and reads the last, so that the
    warm-up does not count. The loops take turns, so that other load on the machine hits both. The
    model, on the device of the images, is not changed.
    """
    keep_freed_memory()  # as the process of a study does
    start = perf_counter()
    trained, kept = as_trained(model, masks, splits, recipe)
    seconds_to_compact = perf_counter() - start
    steps = effort.steps
    if steps is None:
        first_try = train_rate(trained, kept, _sample(splits, recipe, FEWEST_STEPS), recipe)
        steps = max(FEWEST_STEPS, round(effort.seconds * first_try / _batch_size(splits, recipe)))
    sample = _sample(splits, recipe, steps)
    rates = Rates([], [], trained, seconds_to_compact)
    for _ in range(effort.repeats):
        rates.sculpt.append(train_rate(trained, kept, sample, recipe))
        if opponent is not None:
            rates.standard.append(opponent(model, masks, sample.train, _shortened(recipe, 2)))
    return rates


@contextmanager
def standard_opponent() -> Iterator[Opponent]:
    """Run the standard loop in a process of its own, idle until it is called.

    A study changes settings of its process (memory allocator, torch) that a user's loop would not
    have. The call raises a SculptError if the loop stopped before its end.
    """
    # Spawned: a forked process would share the settings, and could not use a GPU.
    with ProcessPoolExecutor(1, get_context("spawn"), _prepare) as process:

        def rate(model: nn.Module, masks: Masks, images: ImageSet, recipe: Training) -> float:
            kept = {name: mask.cpu() for name, mask in masks.items()}
            given = (copy.deepcopy(model).to("cpu"), kept, images.to("cpu"), recipe)
            # As bytes, because torch would pass tensors by sharing our memory.
            message = pickle.dumps((given, str(images.device)))
            try:
                return process.submit(_standard_rate, message).result()
            except Exception as error:
                raise SculptError(
                    f"the standard loop must run to its end, but stopped: {error}"
                ) from error

        # Wait for its imports, which would disturb the first measurement.
        process.submit(len, ()).result()
        yield rate


def _prepare() -> None:
    """Import what the loop needs, and let Ctrl-C end this process without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import sculpt.benchmark.standard_loop  # noqa: F401


def _standard_rate(message: bytes) -> float:
    from sculpt.benchmark.standard_loop import train_standard  # which imports torchvision

    given, device = pickle.loads(message)
    rate: float = train_standard(*given, device=device)[1][-1]
    return rate


def as_trained(
    model: nn.Module, masks: Masks, splits: Splits, recipe: Training
) -> tuple[nn.Module, Masks]:
    """Copy a network and its masks in the form that `sculpt.trial.run_seed` trains."""
    if recipe.compact and not all(mask.all() for mask in masks.values()):
        compaction, _ = compact_where_it_pays(model, masks, splits.train.inputs(slice(2)))
        if compaction is not None:
            return compaction.model, compaction.masks
    return copy.deepcopy(model), masks


def train_rate(model: nn.Module, masks: Masks, splits: Splits, recipe: Training) -> float:
    """Train a copy for a few epochs as a trial does; measure images per second of the last."""
    epochs, device = 2, splits.train.device
    if device.type == "cuda":
        # As many as a run needs for its steps to be captured, if the study's has as many.
        steps = len(splits.train) // _batch_size(splits, recipe)
        epochs = max(epochs, min(recipe.epochs, ceil(FEWEST_CAPTURED / steps)))
    short = _shortened(recipe, epochs)
    rate = train(copy.deepcopy(model), masks, splits, short, seed=0).history[-1].images_per_second
    assert rate is not None, "an epoch was trained"
    return rate


def _shortened(recipe: Training, epochs: int) -> Training:
    """Shorten a recipe to a few epochs, evaluated once."""
    # Speed does not depend on it, and a run without the schedule's slow start should not diverge.
    rate = min(recipe.learning_rate, SAFE_LEARNING_RATE)
    changes = {"epochs": epochs, "evaluate_every": epochs, "learning_rate": rate}
    return recipe.model_copy(update=changes | {"protocol": "validation"})


def _sample(splits: Splits, recipe: Training, steps: int) -> Splits:
    batch_size = _batch_size(splits, recipe)
    return replace(
        splits,
        train=splits.train.sample(steps * batch_size, seed=0),
        validation=splits.validation.sample(batch_size, seed=0),
    )


def _batch_size(splits: Splits, recipe: Training) -> int:
    return min(recipe.batch_size, len(splits.train))
