"""Where the time of a training step goes, and what an epoch adds to its steps.

    python tests/benchmarks/profile_training.py --widening 1 2 --steps 3 --batch 32   # on a CPU
    python tests/benchmarks/profile_training.py --device cuda --engine auto eager --steps 100
    python tests/benchmarks/profile_training.py --device cuda --steps 100 --cudnn-benchmark
    python tests/benchmarks/profile_training.py --device cuda --steps 100 --json > profile.json

The networks, recipe and images of `training.py`: ResNet(k, 3), for k > 1 pruned to 269,034
parameters and compacted, in sculpt's own loop. `--engine auto` is what a trial takes (on CUDA
captured steps, where they are faster), `eager` and `cuda_graph` are the two by themselves.

Times are taken without a profiler. `host` is the time until the host is done with a step that
begins on an idle device: near the step's own time, the host is the bound. Then up to 20 steps are
recorded by `torch.profiler`: shares are of the time of all kernels, on a CPU of all operators
without those they call. `busy` is that time over the time of the steps (on a CPU, where recording
takes time, of the recorded ones). A name says what a kernel does, not what for: arithmetic that
places random shifts is `elementwise`, and indexing is `other`.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
import os
import re
import timeit
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from paper_networks import finish, load, show, sparse_network, training_options, wait
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sculpt.arithmetic import float32_products
from sculpt.benchmark.race import as_trained
from sculpt.config import Training
from sculpt.data import Splits
from sculpt.search.workers.devices import use_device
from sculpt.training.capture import capture, choose_engine
from sculpt.training.loss_and_error import evaluate
from sculpt.training.memory import release_memory
from sculpt.training.precision import resolve_precision
from sculpt.training.trainer import Trainer

MOST_RECORDED = 20
"""Steps under the profiler."""

CLASSES = {
    "optimiser and masks": r"multi_tensor_apply|_foreach_|fused_sgd",
    "batch norm": r"batch_?norm|\bbn_(fw|bw)|cudnn::bn|nhwc_?bn|bnorm|welford",
    # Before convolutions, whose libraries change layouts by kernels of their own.
    "copies and casts": r"^mem(cpy|set)|nchwToNhwc|nhwcToNchw|copy_kernel|CatArray|convertTensor"
    r"|aten::(copy_|_?to_copy|to|contiguous|clone|cat|fill_|zero_)$|FillFunctor",
    "convolution and matmul": r"gemm|gemv|conv(?!ert)|xmma|cutlass|nvjet|cublas|[wd]grad|fprop"
    r"|winograd|splitk|aten::(addmm|mm|bmm)$",
    "elementwise": r"elementwise|threshold|aten::(add|sub|mul|div|relu|clamp\w*|lerp)_?$",
}
"""Of the names of CUDA kernels and of operators (aten::); the first that fits counts."""

OTHER = "other"


def main() -> None:
    """Measure, and print text or JSON."""
    parser = training_options(__doc__)
    parser.add_argument(
        "--engine", nargs="+", default=["auto"], choices=["auto", "eager", "cuda_graph"]
    )
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=3, help="epochs; medians count")
    parser.add_argument(
        "--cudnn-benchmark", action="store_true", help="let cuDNN choose algorithms by timing them"
    )
    parser.add_argument("--top", type=int, default=10, help="kernels that are named")
    options = parser.parse_args()
    # The profiler and captured steps share a part of the driver that must not be taken down.
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    splits = load(options.data_root).to(options.device)
    device = splits.train.device  # with its number, which `cuda` has not
    use_device(device)
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    rows = []
    for widening in options.widening:
        for engine in options.engine:
            row = {"widening": widening} | measure(widening, engine, splits, options)
            rows.append(show(row, options))
    finish(options, rows, cuda=torch.version.cuda)


def measure(
    widening: int, engine: str, splits: Splits, options: argparse.Namespace
) -> dict[str, Any]:
    """Train a network for a few epochs; return what its time went to, in seconds and bytes."""
    recipe = Training(
        epochs=1,
        batch_size=options.batch,
        flip=True,
        translate=4,
        precision=options.precision,
        # Speed does not depend on the rate, but a run that diverges might.
        schedule="constant",
        learning_rate=1e-3,
    )
    device = splits.train.device
    precision = resolve_precision(recipe.precision, device)
    model, masks = sparse_network(widening, splits, options.seed)
    model, masks = as_trained(model, masks, splits, recipe)
    sample = splits.train.sample(options.steps * recipe.batch_size, seed=0)
    release_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        # The profiler must be awake before a step is captured, or its kernels are recorded as one.
        record(lambda: torch.zeros(1, device=device), device)
    with float32_products(precision, device):
        trainer = Trainer(model, masks, sample, recipe, precision, seed=0)
        batches = list(torch.arange(len(sample), device=device).split(trainer.batch_size))
        chosen = engage(trainer, engine, batches[0])
        step = seconds_of(lambda: trainer.run_epoch(1), device, options.repeats)
        step /= trainer.steps_per_epoch
        memory = None
        if device.type == "cuda":
            memory = {
                "allocated": torch.cuda.max_memory_allocated(device),
                "reserved": torch.cuda.max_memory_reserved(device),
            }
        host = median(
            timeit.repeat(lambda: trainer.step(batches[0]), lambda: wait(device), number=1)
        )
        recorded = batches[: min(trainer.steps_per_epoch, MOST_RECORDED)]
        wall, kernels = record(lambda: [trainer.step(batch) for batch in recorded], device)
        epoch = seconds_of_an_epoch(trainer, splits, step, options.repeats)
    total = sum(taken for _, _, taken in kernels) or 1.0
    classes: dict[str, float] = defaultdict(float)
    for name, _, taken in kernels:
        classes[classify(name)] += taken / total
    of = wall / len(recorded) if device.type == "cpu" else step
    return {
        "engine": chosen,
        "precision": precision,
        "batch": trainer.batch_size,
        "images_per_second": trainer.batch_size / step,
        "seconds_per_step": step,
        "host_seconds": host,
        "busy_share": min(1.0, total / len(recorded) / of) if kernels else None,
        "kernels_per_step": sum(count for _, count, _ in kernels) / len(recorded),
        "peak_memory": memory,
        "epoch": epoch,
        "classes": dict(sorted(classes.items(), key=lambda found: -found[1])),
        "top": [
            {
                "name": name,
                "class": classify(name),
                "share": taken / total,
                "per_step": count / len(recorded),
                "seconds_each": taken / count,
            }
            for name, count, taken in kernels[: options.top]
        ],
    }


def engage(trainer: Trainer, engine: str, batch: Tensor) -> dict[str, Any]:
    """Let a trainer take its steps in a way, and return what `choose_engine` would say of it."""
    if engine == "auto":
        # As a trial does, which has more steps than are taken here.
        return choose_engine(trainer, fewest_steps=0)
    if engine == "cuda_graph":
        before = trainer.state()
        trainer.model.train()
        trainer.update = capture(trainer, batch)
        trainer.optimizer.zero_grad()
        trainer.restore(before)
    return {"name": engine, "reason": "asked for"}


def record(
    work: Callable[[], object], device: torch.device
) -> tuple[float, list[tuple[str, int, float]]]:
    """Do some work under torch's profiler.

    Returns:
        Its seconds, and (name, calls, seconds) of every kernel, the longest first; on the CPU of
        every operator, without what it calls.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    # Without `acc_events` torch 2.11 warns that cycles are forgotten; there is only one here.
    with profile(activities=activities, acc_events=True) as profiler:
        wall = seconds_of(work, device, repeats=0)
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    found = [
        (event.key, event.count, taken / 1e6)
        for event in profiler.key_averages()
        if event.device_type == wanted
        and not event.is_user_annotation
        and (taken := event.self_device_time_total if on_gpu else event.self_cpu_time_total) > 0
    ]
    return wall, sorted(found, key=lambda one: -one[2])


def classify(name: str) -> str:
    """Return one of `CLASSES`, or `OTHER`, for the name of a kernel or of an operator."""
    fits = (kind for kind, names in CLASSES.items() if re.search(names, name, re.IGNORECASE))
    return next(fits, OTHER)


def seconds_of_an_epoch(
    trainer: Trainer, splits: Splits, step: float, repeats: int
) -> dict[str, float]:
    """Return seconds of the parts of a whole epoch, whose steps take `step` seconds each."""
    device, precision = trainer.device, trainer.precision
    # No more than were trained on, because on a CPU that takes long.
    images = splits.validation.sample(len(trainer.images), seed=0)
    evaluation = seconds_of(
        lambda: evaluate(trainer.model, images, precision=precision), device, repeats
    )
    order = seconds_of(lambda: torch.randperm(len(splits.train)).to(device), device, repeats)
    return {
        "steps": len(splits.train) // trainer.batch_size * step,
        "evaluation": evaluation * len(splits.validation) / len(images),
        "state copy": seconds_of(trainer.state, device, repeats),
        "order": order,
    }


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median after one that warms up; with no `repeats`, the seconds of that one."""

    def finished() -> None:
        work()
        wait(device)

    taken = timeit.repeat(finished, lambda: wait(device), repeat=repeats + 1, number=1)
    return median(taken[1:] or taken)


if __name__ == "__main__":
    main()
