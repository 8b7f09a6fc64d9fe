"""How many trials at a time make the most of a device: measured, because nothing else tells."""

import os
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from time import perf_counter

import torch

from sculpt.config import Study
from sculpt.data import Splits
from sculpt.errors import SculptError
from sculpt.pruning.masks import dense_masks
from sculpt.registry import load_plugins
from sculpt.search.sampling.feasibility import check_study
from sculpt.search.workers.processes import crew
from sculpt.training.loop import train
from sculpt.training.memory import keep_freed_memory
from sculpt.trial import build_model

MEASURED_SECONDS = 4.0
"""Of training, for each number of trials; starting the processes comes on top."""

BATCHES = 8
"""In a pass over the sample that is trained on."""

LEAST_GAIN = 1.05
"""More trials at a time must be faster by this factor, because each also takes memory."""

MOST_ON_A_GPU = 8

CONTEXT_BYTES = 2**30
"""What CUDA and its libraries take in each process; an estimate."""


@dataclass(frozen=True)
class Concurrency:
    """What was measured: trials at a time -> images per second of all of them together."""

    rates: dict[int, float]

    @property
    def best(self) -> int:
        """How many trials at a time to run."""
        best = 1
        for count, rate in self.rates.items():
            if rate > LEAST_GAIN * self.rates[best]:
                best = count
        return best

    def __str__(self) -> str:
        rates = ", ".join(f"{count}: {rate:,.0f}" for count, rate in self.rates.items())
        return f"trials per device: {rates} images/s together -> {self.best}"


def measure_concurrency(config: Study, splits: Splits) -> Concurrency:
    """Train 1, 2, 4, ... copies of a middling candidate at once, as long as that gains something.

    Args:
        config:
            The study; none of its trials is started.
        splits:
            Its images, on the device to measure.

    Raises:
        SculptError: not even one copy can be trained.
    """
    device, spec = splits.train.device, splits.spec
    corners = [row for row in check_study(config, spec)["corners"] if row["feasible"]]
    corners.sort(key=lambda row: row["dense_macs"])
    candidate, memory = config, 0
    if corners:
        candidate = config.with_parameters(corners[len(corners) // 2]["params"])
        memory = max(row["memory_bytes"] for row in corners)
    size = BATCHES * candidate.training.batch_size
    sample = replace(
        splits.to("cpu"),
        train=splits.train.sample(size, seed=0).to("cpu"),
        validation=splits.validation.sample(candidate.training.batch_size, seed=0).to("cpu"),
    )
    rates: dict[int, float] = {}
    count, most = 1, _most(device, memory)
    while count <= most:
        rate = _rate(count, candidate, sample, str(device))
        if rate is None:
            break
        rates[count] = rate
        if Concurrency(rates).best != count:
            break
        count *= 2
    return Concurrency(rates)


def _most(device: torch.device, memory: int) -> int:
    """Return how many trials at a time there may be at most, each with `memory` bytes."""
    if device.type == "cpu":
        return os.cpu_count() or 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST_ON_A_GPU, free // (memory + CONTEXT_BYTES)))


def _rate(count: int, candidate: Study, splits: Splits, device: str) -> float | None:
    """Return the images per second of `count` processes together; None if one of them failed."""
    with crew(count, _train_for_a_while, candidate, splits, device) as members:
        try:
            for member in members:
                member.receive()  # it is warm
            for member in members:
                member.connection.send("go")
            return sum(member.receive() for member in members)
        except (EOFError, OSError, SculptError) as error:
            if count == 1:
                raise SculptError(
                    "a candidate must be trainable to measure how many fit on the device, but "
                    f"{error or 'its process died'}; give --trials-per-device a number"
                ) from error
            return None  # most likely there is too little memory for so many


def _train_for_a_while(
    connection: Connection, number: int, candidate: Study, splits: Splits, device: str
) -> None:
    load_plugins(candidate.plugins)
    if device == "cpu":
        keep_freed_memory()
    splits = splits.to(device)
    model = build_model(candidate, splits.spec).to(device).to(memory_format=torch.channels_last)
    masks = dense_masks(model)
    # So small a rate, because a loss that is not finite would end the training.
    changes = {"epochs": 2, "learning_rate": 1e-6, "protocol": "validation"}
    recipe = candidate.training.model_copy(update=changes)

    def train_once() -> int:
        train(model, masks, splits, recipe, seed=0)
        return recipe.epochs * len(splits.train)

    train_once()
    connection.send("ready")
    connection.recv()
    start, images = perf_counter(), 0
    while perf_counter() - start < MEASURED_SECONDS:
        images += train_once()
    connection.send(images / (perf_counter() - start))
