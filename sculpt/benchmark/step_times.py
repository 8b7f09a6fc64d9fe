"""Seconds of training by the clock, no profiler: of steps, and of the rest of an epoch."""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch

from sculpt.data import Splits
from sculpt.training.evaluation import evaluate
from sculpt.training.trainer import Trainer

SINGLE_STEPS = 5
"""Of which each begins on an idle device, to see what the host alone needs."""

Row = dict[str, Any]


def time_steps(trainer: Trainer, repeats: int) -> Row:
    """Return seconds of a step: on the clock, by the device's own events, and of the host alone.

    Args:
        trainer:
            Takes a pass over its images to warm up, then `repeats` passes, whose median counts.
        repeats:
            At least 1.
    """
    device, steps = trainer.device, trainer.steps_per_epoch
    trainer.run_epoch(1)
    walls, by_events = [], []
    for number in range(2, 2 + repeats):
        wait(device)
        events = _events(device)
        start = perf_counter()
        for event in events[:1]:
            event.record()
        trainer.run_epoch(number)
        for event in events[1:]:
            event.record()
        wait(device)
        walls.append((perf_counter() - start) / steps)
        if events:
            by_events.append(events[0].elapsed_time(events[1]) / 1e3 / steps)
    batch = torch.arange(trainer.batch_size, device=device)
    host = []
    for _ in range(SINGLE_STEPS):
        wait(device)
        start = perf_counter()
        trainer.step(batch)
        host.append(perf_counter() - start)
    wait(device)
    return {
        "seconds": median(walls),
        "seconds_each": walls,
        "seconds_by_events": median(by_events) if by_events else None,
        "host_seconds": median(host),
    }


def time_epoch(trainer: Trainer, splits: Splits, precision: str, step_seconds: float) -> Row:
    """Return seconds of a whole epoch: its steps, and what the loop does beside them.

    Args:
        trainer:
            In training; its state is copied, its network evaluated.
        splits:
            All images of the epoch.
        precision:
            Resolved; of the evaluation.
        step_seconds:
            Of one step, as measured.
    """
    device = trainer.device
    steps = len(splits.train) // trainer.batch_size
    # No more than were trained on, because on a CPU that takes long.
    validation = splits.validation.sample(len(trainer.images), seed=0)
    share = len(splits.validation) / len(validation)
    seconds = {
        "steps": steps * step_seconds,
        "evaluation": share
        * _seconds(lambda: evaluate(trainer.model, validation, precision=precision), device),
        "state_copy": _seconds(trainer.state, device),
        "permutation": _seconds(lambda: torch.randperm(len(splits.train)).to(device), device),
    }
    total = sum(seconds.values())
    state = trainer.state().values()
    return {
        "steps": steps,
        "evaluated_images": len(splits.validation),
        "seconds": total,
        "parts": seconds,
        "shares": {part: taken / total for part, taken in seconds.items()},
        # Of the copies that are known without a record: the order goes there, the state comes back.
        "permutation_bytes": 8 * len(splits.train),
        "state_bytes": sum(tensor.numel() * tensor.element_size() for tensor in state),
        "state_tensors": len(state),
    }


def wait(device: torch.device) -> None:
    """Wait until a device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _events(device: torch.device) -> list[torch.cuda.Event]:
    if device.type != "cuda":
        return []
    return [torch.cuda.Event(enable_timing=True) for _ in range(2)]


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Return the median, after one that warms up."""
    taken = []
    for _ in range(repeats + 1):
        wait(device)
        start = perf_counter()
        work()
        wait(device)
        taken.append(perf_counter() - start)
    return median(taken[1:])
