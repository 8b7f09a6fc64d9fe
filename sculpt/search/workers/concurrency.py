"""The fastest number of trials at a time on a device: measured, because nothing else tells."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from time import perf_counter
from typing import NamedTuple

import torch
from torch import nn

from sculpt.config import Study, Training
from sculpt.data import Splits
from sculpt.errors import SculptError
from sculpt.pruning.masks import Masks, dense_masks
from sculpt.record import Epoch
from sculpt.registry import asked_for, load_plugins
from sculpt.search.sampling.feasibility import check_study
from sculpt.search.workers.devices import use_device
from sculpt.search.workers.processes import worker_processes
from sculpt.training.loop import train
from sculpt.trial_setup import build_model, channels_last

MEASURED_SECONDS = 4.0
"""Training time for each number of trials; starting the processes comes on top."""

BATCHES, BATCHES_ON_CUDA = 8, 100
"""Batches in a pass over the sample that is trained on. A CPU takes long over them; on CUDA the
cost of a pass besides its steps would outweigh so few of them."""

WARM_UP_EPOCHS = 2

MOST_EPOCHS = 1_000_000
"""Never reached; and so many steps that they are captured, as in all but short trials."""

LEAST_GAIN = 1.05
"""More trials at a time must be faster by this factor, because each also takes memory."""

MOST_ON_A_GPU = 8

CONTEXT_BYTES = 2**30
"""Memory of CUDA and its libraries in each process; an estimate."""

Network = Callable[[Splits], tuple[nn.Module, Masks]]
"""Makes the network to train, on the device of the images; called in a process of its own."""


class Throughput(NamedTuple):
    """Measurement of several processes that train at once."""

    rate: float
    """Images per second of all of them together."""
    memory_bytes: int | None
    """Memory that they take of the device, CUDA's own share included; None on the CPU."""


class Concurrency(dict[int, float]):
    """Trials at a time -> images per second of all of them together, as measured."""

    @property
    def best(self) -> int:
        """Number of trials at a time to run."""
        best = 1
        for count, rate in self.items():
            if rate > LEAST_GAIN * self[best]:
                best = count
        return best

    def __str__(self) -> str:
        rates = ", ".join(f"{count}: {rate:,.0f}" for count, rate in self.items())
        return f"trials per device: {rates} images/s together -> {self.best}"


def measure_concurrency(config: Study, splits: Splits) -> Concurrency:
    """Train 1, 2, 4, ... copies of a middling candidate at once, as long as that gains something.

    The images are on the device to measure. SculptError if not even one copy can be trained.
    """
    device = splits.train.device
    corners = [row for row in check_study(config, splits.spec)["corners"] if row["feasible"]]
    corners.sort(key=lambda row: row["dense_macs"])
    candidate, memory = config, 0
    if corners:
        candidate = config.with_parameters(corners[len(corners) // 2]["params"])
        memory = max(row["memory_bytes"] for row in corners)
    most = os.cpu_count() or 1
    if device.type != "cpu":
        free, _ = torch.cuda.mem_get_info(device)
        most = max(1, min(MOST_ON_A_GPU, free // (memory + CONTEXT_BYTES)))
    network = partial(_dense_network, candidate, asked_for(candidate.plugins))
    measured, count = Concurrency(), 1
    while count <= most and (found := train_together(count, candidate.training, splits, network)):
        measured[count] = found.rate
        if measured.best != count:
            break
        count *= 2
    return measured


def _dense_network(candidate: Study, trusted: list[str], splits: Splits) -> tuple[nn.Module, Masks]:
    """Build a candidate's network as it is before pruning, and masks that keep all of it."""
    load_plugins(candidate.plugins, trusted)
    model = channels_last(build_model(candidate, splits.spec).to(splits.train.device))
    return model, dense_masks(model)


def train_together(
    count: int, recipe: Training, splits: Splits, network: Network
) -> Throughput | None:
    """Train one network in each of `count` processes at once, for a few seconds, on the device of
    the images and by a recipe, of whose learning rate hardly any is used.

    Returns None if one of several failed: most likely there is too little memory for so many.
    SculptError if not even one can be trained.
    """
    device, batch_size = splits.train.device, recipe.batch_size
    batches = BATCHES_ON_CUDA if device.type == "cuda" else BATCHES
    # As many to evaluate as in CIFAR-10's usual split, about.
    size, evaluated = batches * batch_size, batches // 8 * batch_size
    sample = replace(
        splits.to("cpu"),
        train=splits.train.sample(size, seed=0).to("cpu"),
        validation=splits.validation.sample(evaluated, seed=0).to("cpu"),
    )
    before = _free(device)
    given = sample, recipe, str(device), network
    with worker_processes(count, _train_for_a_while, *given) as workers:
        try:
            for worker in workers:
                worker.receive()  # it is warm
            free = _free(device)
            memory = None if before is None or free is None else before - free
            for worker in workers:
                worker.connection.send("go")
            return Throughput(sum(worker.receive() for worker in workers), memory)
        except (EOFError, OSError, SculptError) as error:
            if count == 1:
                raise SculptError(
                    "a candidate must be trainable to measure how many fit on the device, but "
                    f"{error or 'its process died'}; give --trials-per-device a number"
                ) from error
            return None


def _free(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


class _EnoughError(Exception):
    """Ends a training that was measured for long enough."""


def _train_for_a_while(
    connection: Connection, _: int, splits: Splits, recipe: Training, device: str, network: Network
) -> None:
    use_device(torch.device(device))
    splits = splits.to(device)
    model, masks = network(splits)
    # So small a rate, because a loss that is not finite would end the training.
    endless = {"epochs": MOST_EPOCHS, "evaluate_every": 1, "learning_rate": 1e-6}
    recipe = recipe.model_copy(update=endless | {"protocol": "validation"})
    batch_size = min(recipe.batch_size, len(splits.train))
    images_per_epoch = len(splits.train) // batch_size * batch_size
    start = 0.0

    def after_epoch(epoch: Epoch) -> None:
        nonlocal start
        if epoch.epoch == WARM_UP_EPOCHS:
            connection.send("ready")
            connection.recv()
            start = perf_counter()
        seconds = perf_counter() - start
        if epoch.epoch > WARM_UP_EPOCHS and seconds >= MEASURED_SECONDS:
            connection.send((epoch.epoch - WARM_UP_EPOCHS) * images_per_epoch / seconds)
            raise _EnoughError

    # One long run, so that preparing it (capturing a step, say) is not counted again and again.
    with suppress(_EnoughError):
        train(model, masks, splits, recipe, seed=0, on_epoch=after_epoch)
        raise SculptError("its loss is not finite")
