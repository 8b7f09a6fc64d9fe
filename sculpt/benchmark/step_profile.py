"""Where the time of training goes: in a step, and in an epoch outside its steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sculpt.benchmark.kernels import CLASSES
from sculpt.benchmark.race import SAFE_LEARNING_RATE, as_trained
from sculpt.benchmark.step_times import time_epoch, time_steps
from sculpt.benchmark.trace import Activity, record
from sculpt.config import Training
from sculpt.data import Splits
from sculpt.diagnostics.cost import measure_cost
from sculpt.pruning.masks import Masks
from sculpt.training.capture import ChosenEngine, capture, choose_engine, forget_capture
from sculpt.training.memory import release_memory
from sculpt.training.precision import float32_products, resolve_precision
from sculpt.training.trainer import Trainer

Engine = Literal["auto", "eager", "cuda_graph"]

MOST_RECORDED = 20
"""Steps under the profiler: a trace of many takes longer to read than the steps took."""

FLOPS_PER_MAC = 6
"""Of a training step: two forward, four backward."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    steps: int = 20
    """Of an epoch."""
    repeats: int = 3
    """Epochs, of which the median counts."""
    top: int = 10
    """Kernels, or operators, that are named."""


def profile_training(
    model: nn.Module,
    masks: Masks,
    splits: Splits,
    recipe: Training,
    *,
    engine: Engine = "auto",
    extent: Extent | None = None,
) -> Row:
    """Train a copy for a few epochs by sculpt's loop, and say what the time went to.

    Times are taken without the profiler; its record tells what they consist of. Where it records
    nothing of the device, `profiler` says so, and what would be read from the record is None.

    Args:
        model:
            On the device of the images; it is left as it is.
        masks:
            Keyed by parameter name.
        splits:
            On that device; all of it makes an epoch, of which `extent.steps` are taken.
        recipe:
            As of the study.
        engine:
            `auto` is what a trial chooses. `cuda_graph` captures, whether that is faster or not.
        extent:
            How much to measure.

    Returns:
        `step`, `epoch`, `classes`, `top` and more, JSON-serialisable; in seconds and bytes.
    """
    extent = extent or Extent()
    device = splits.train.device
    precision = resolve_precision(recipe.precision, device)
    trained, kept = as_trained(model, masks, splits, recipe)
    macs = measure_cost(trained, tuple(splits.train.images.shape[1:])).dense_macs
    sample = splits.train.sample(extent.steps * recipe.batch_size, seed=0)
    # Speed does not depend on the rate, but a run that diverges might.
    rate = min(recipe.learning_rate, SAFE_LEARNING_RATE)
    steady = recipe.model_copy(update={"schedule": "constant", "learning_rate": rate})
    release_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        # The profiler's part in the driver must be awake before a step is captured, or its
        # kernels may be recorded as one.
        _recorded(torch.zeros_like, [sample.labels[:1]], device)
    with float32_products(precision, device):
        trainer = Trainer(trained, kept, sample, steady, precision, seed=0)
        chosen = engage(trainer, engine)
        step = time_steps(trainer, extent.repeats)
        memory = _peak_memory(device)
        batches = _batches(trainer)
        steps = _recorded(trainer.step, batches, device)
        data = _recorded(trainer.inputs_of, batches, device)
        epoch = time_epoch(trainer, splits, precision, step["seconds"])
    rate = trainer.batch_size / step["seconds"]
    row: Row = {
        "engine": chosen,
        "precision": precision,
        "batch": trainer.batch_size,
        "images_per_second": rate,
        "macs": macs,
        "flops": FLOPS_PER_MAC * macs * rate,
        "peak_memory": memory,
        "profiler": steps if isinstance(steps, str) else "ok",
        "step": step,
        "epoch": epoch,
        "classes": None,
        "top": None,
        "augmentation": None,
    }
    if isinstance(steps, str):
        return row
    row |= {"step": step | _per_step(steps, step["seconds"], len(batches), device)}
    row |= {"classes": _classes(steps, len(batches)), "top": _top(steps, len(batches), extent.top)}
    if not isinstance(data, str):
        row["augmentation"] = _per_step(data, step["seconds"], len(batches), device)
        row["augmentation"]["share"] = data.seconds / steps.seconds
    return row


def engage(trainer: Trainer, engine: Engine) -> ChosenEngine:
    """Let a trainer take its steps in a way, and return what `choose_engine` would say of it."""
    if engine == "eager":
        return {"name": "eager", "reason": "asked for"}
    if engine == "auto":
        # As a trial does, which has more steps than are taken here.
        return choose_engine(trainer, fewest_steps=0)
    if trainer.device.type != "cuda":
        return {"name": "eager", "reason": "no CUDA device"}
    before = trainer.state()
    trainer.model.train()
    try:
        trainer.update = capture(trainer, _batches(trainer)[0])
    except RuntimeError as error:
        forget_capture(trainer)
        reason = str(error).partition("\n")[0]
        return {"name": "eager", "reason": f"capturing failed: {reason}"}
    finally:
        trainer.optimizer.zero_grad()
        trainer.restore(before)
    return {"name": "cuda_graph", "reason": "asked for"}


def _batches(trainer: Trainer) -> list[Tensor]:
    """Return the indices of a few batches."""
    count = min(trainer.steps_per_epoch, MOST_RECORDED)
    order = torch.randperm(len(trainer.images))[: count * trainer.batch_size]
    return list(order.to(trainer.device).split(trainer.batch_size))


def _recorded(
    work: Callable[[Tensor], object], batches: list[Tensor], device: torch.device
) -> Activity | str:
    """Return what a device did to work on some batches, or why that is not known."""

    def everything() -> None:
        for batch in batches:
            work(batch)

    try:
        found = record(everything, device)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        # However it fails, the times are known.
        return f"the profiler failed: {str(error).partition(chr(10))[0]}"
    return found if found.count else "the profiler recorded nothing of the device"


def _per_step(found: Activity, seconds: float, steps: int, device: torch.device) -> Row:
    """Return what was recorded of some steps, for one of them.

    `seconds` is what one takes without being recorded: on a GPU what its kernels are a share of.
    On the CPU recording takes time within the operators too, so there both are recorded times.
    """
    busy, wall = found.busy_seconds / steps, found.wall_seconds / steps
    return {
        "recorded_seconds": wall,
        "busy_seconds": busy,
        "busy_share": min(1.0, busy / (wall if device.type == "cpu" else seconds)),
        "kernels": found.count / steps,
        "kernel_seconds": found.seconds / found.count,
        "bytes_to_device": found.to_device / steps,
        "bytes_from_device": found.from_device / steps,
    }


def _classes(found: Activity, steps: int) -> Row:
    counts = dict.fromkeys(CLASSES, 0)
    for one in found.spent:
        counts[one.kind] += one.count
    return {
        kind: {
            "share": share,
            "seconds": share * found.seconds / steps,
            "kernels": counts[kind] / steps,
        }
        for kind, share in found.shares().items()
    }


def _top(found: Activity, steps: int, most: int) -> list[Row]:
    return [
        {
            "name": one.name,
            "class": one.kind,
            "share": one.seconds / found.seconds,
            "kernels": one.count / steps,
            "kernel_seconds": one.seconds / one.count,
        }
        for one in found.spent[:most]
    ]


def _peak_memory(device: torch.device) -> dict[str, int] | None:
    """Return bytes since they were last reset; None on the CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return {
        "allocated": torch.cuda.max_memory_allocated(device),
        # With the memory of a captured step, and what the allocator keeps.
        "reserved": torch.cuda.max_memory_reserved(device),
        "in_use_on_device": total - free,
    }
