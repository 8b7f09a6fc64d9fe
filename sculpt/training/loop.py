"""The training loop: epochs, evaluations, checkpoints, and recovery from a lack of memory."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

from torch import nn

from sculpt.arithmetic import float32_products, sound_convolutions
from sculpt.config import Training
from sculpt.data import Splits
from sculpt.errors import DeviceMemoryError, SculptWarning
from sculpt.pruning.masks import Masks
from sculpt.record import Epoch, TrainingFacts
from sculpt.training.capture import choose_engine
from sculpt.training.loss_and_error import evaluate
from sculpt.training.memory import is_out_of_memory, release_memory
from sculpt.training.precision import resolve_precision
from sculpt.training.trainer import State, Trainer
from sculpt.training.training_checkpoint import Progress, TrainingCheckpoint


@dataclass
class Trained:
    """Outcome of training one network."""

    facts: TrainingFacts
    """How it was computed; the precision alone without epochs."""
    masks: Masks
    """At the end: those given, or where they have moved to."""
    history: list[Epoch]
    """One entry per evaluation."""
    diverged: bool = False
    """A loss was not finite, and training ended there."""
    moved: int | None = None
    """Weights that masks have grown or dropped in all moves; None where they stay."""


def train(
    model: nn.Module,
    masks: Masks,
    splits: Splits,
    recipe: Training,
    *,
    seed: int,
    budget: int | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    checkpoint: TrainingCheckpoint | None = None,
) -> Trained:
    """Train a masked network in place; pruned weights are zero after every step.

    The order of the images and their augmentation follow from `seed` alone, not from the
    network, so that networks trained with one seed are paired. The last, smaller batch of a
    pass is left out (its batch statistics are noisy), unless it is the only one.

    A loss that is not finite ends the run; its last entry is the network's at that point, with
    every image without finite logits misclassified. When the device runs out of memory, the epoch
    is repeated with less of it, by the same mathematics: in parts whose gradients add up, or
    (batch norm needs the whole batch) with activations in the host's memory.

    Args:
        model: On the device of the images; its pruned weights are zero.
        masks: Keyed by parameter name.
        splits: `train` is trained on and `validation` evaluated; `test` is read only under the
            protocol `lowest_test`.
        recipe: Optimiser, schedule, augmentation, precision, when to evaluate.
        seed: Decides data order and augmentation.
        budget: Weights that the masks keep in the end, if they move as the recipe says; by default
            they stay.
        on_epoch: Called after each evaluation, those of an earlier, interrupted run included.
        checkpoint: Saves the run and resumes it. On the CPU in float32 an interrupted run ends bit
            for bit like an uninterrupted one.

    Raises:
        DeviceMemoryError: the device is too small even so.
        InputError: the device lacks the precision.
    """
    device = splits.train.device
    precision = resolve_precision(recipe.precision, device)
    with float32_products(precision, device), sound_convolutions(model):
        if recipe.epochs == 0:
            blank = Epoch(0, 0.0, None, None, None, 0.0, None, 0.0, None)
            history = [_evaluated(model, splits, recipe, precision, blank)]
            return Trained(TrainingFacts(precision=precision, resumed_at=[]), masks, history)
        trainer = Trainer(model, masks, splits.train, recipe, precision, seed, budget)
        progress = _resume(trainer, checkpoint)
        for epoch in progress.history:
            on_epoch(epoch)
        if progress.epoch < recipe.epochs and not progress.diverged:
            progress = replace(progress, engine=choose_engine(trainer))
            progress = _train_epochs(trainer, splits, progress, on_epoch, checkpoint)
        trainer.swap_average()
        if trainer.meet_budget() and progress.history:
            *history, last = progress.history
            smaller = _evaluated(model, splits, recipe, precision, last)
            progress = replace(progress, history=[*history, smaller])
    facts = TrainingFacts(
        precision=precision,
        engine=progress.engine,
        micro_batches=trainer.micro_batches,
        offload=trainer.offload,
        resumed_at=progress.resumed_at,
    )
    moved = None if budget is None else trainer.moved
    return Trained(facts, trainer.masks, progress.history, progress.diverged, moved)


def evaluations(recipe: Training) -> int:
    """Count the evaluations of a run that does not diverge."""
    return max(1, math.ceil(recipe.epochs / recipe.evaluate_every))


def _resume(trainer: Trainer, checkpoint: TrainingCheckpoint | None) -> Progress:
    """Resume a run from its checkpoint; without a fitting one, start it."""
    saved = checkpoint.read() if checkpoint else None
    if saved is None:
        return Progress()
    state, progress = saved
    others = [
        name
        for name, tensor in trainer.pack(trainer.state()).items()
        if name not in state or state[name].shape != tensor.shape
    ]
    if others:
        # For example from another kind of device, whose generator has another state.
        warnings.warn(
            f"a checkpoint must be of the same network and kind of device to go on from it, but "
            f"differs in {others[0]}; the run starts from its beginning",
            SculptWarning,
            stacklevel=3,
        )
        return Progress()
    trainer.restore(trainer.unpack(state))
    return replace(progress, resumed_at=[*progress.resumed_at, progress.epoch])


def _train_epochs(
    trainer: Trainer,
    splits: Splits,
    progress: Progress,
    on_epoch: Callable[[Epoch], None],
    checkpoint: TrainingCheckpoint | None,
) -> Progress:
    """Train until the last epoch, or a loss that is not finite."""
    first, start = progress.epoch + 1, perf_counter()
    saved = trainer.state(), progress  # one value: an interrupt finds an epoch's both, or neither
    try:
        for number in range(first, trainer.recipe.epochs + 1):
            state, progress = saved
            entry = _run_epoch(trainer, number, splits, state)
            history, diverged = progress.history, False
            if entry:
                history = [*history, replace(entry, seconds=perf_counter() - start)]
                start = perf_counter()
                diverged = entry.train_loss is None or entry.val_loss is None
            progress = replace(progress, epoch=number, history=history, diverged=diverged)
            saved = trainer.state(), progress
            last = diverged or number == trainer.recipe.epochs
            if checkpoint and (checkpoint.due() or last):
                checkpoint.write(trainer.pack(saved[0]), progress)
            if entry:
                on_epoch(history[-1])
            if diverged:
                break
    except KeyboardInterrupt:
        # The epoch that was interrupted is lost, and nothing more.
        state, progress = saved
        if checkpoint and progress.epoch >= first:
            checkpoint.write(trainer.pack(state), progress)
        raise
    return progress


def _run_epoch(trainer: Trainer, number: int, splits: Splits, before: State) -> Epoch | None:
    """Run an epoch from the state before it; None if the epoch is not evaluated."""
    recipe, start = trainer.recipe, perf_counter()
    _run_within_memory(trainer, number, before)
    # The only moment of an epoch at which the host waits for the device.
    loss = trainer.loss_sum.item() / trainer.steps_per_epoch
    seconds, finite = perf_counter() - start, math.isfinite(loss)
    if finite and number % recipe.evaluate_every and number != recipe.epochs:
        return None
    seen = trainer.steps_per_epoch * trainer.batch_size
    trained = Epoch(
        epoch=number,
        learning_rate=trainer.last_rate,
        train_loss=loss if finite else None,
        train_error=trainer.wrong.item() / seen if splits.train.task.metric == "error" else None,
        val_loss=None,
        val_error=math.nan,
        test_error=None,
        seconds=0.0,
        images_per_second=seen / seconds,
    )
    trainer.swap_average()
    entry = _evaluated(trainer.model, splits, recipe, trainer.precision, trained)
    trainer.swap_average()
    return entry


def _run_within_memory(trainer: Trainer, number: int, before: State) -> None:
    """Take an epoch's steps; out of memory, repeat them with less of it.

    Raises:
        DeviceMemoryError: no way is left to use less.
    """
    while True:
        try:
            trainer.run_epoch(number)
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: the error holds the frames, and they hold the activations.
        if not trainer.use_less_memory():
            raise DeviceMemoryError(
                f"training must fit into the memory of {trainer.device}, but batches of "
                f"{trainer.batch_size} images do not, however they are split; lower "
                "training.batch_size, or use a larger device"
            )
        release_memory(trainer.device)
        trainer.restore(before)


def _evaluated(
    model: nn.Module, splits: Splits, recipe: Training, precision: str, trained: Epoch
) -> Epoch:
    """Add losses and errors on validation (and test) images to an epoch."""
    val_loss, val_error = evaluate(model, splits.validation, precision=precision)
    test_error = None
    if recipe.protocol == "lowest_test":
        _, test_error = evaluate(model, splits.test, precision=precision)
    finite = val_loss if math.isfinite(val_loss) else None
    return replace(trained, val_loss=finite, val_error=val_error, test_error=test_error)
