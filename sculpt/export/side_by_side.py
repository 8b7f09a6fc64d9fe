"""A network in every runtime of this machine, in turns: what its sparsity is worth in time."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sculpt.config.search import Runtime
from sculpt.diagnostics.layers import Masks
from sculpt.errors import InputError
from sculpt.export.condensing import condense
from sculpt.export.latency import cpu_name, masked_copy, torch_threads
from sculpt.export.lowering import lower
from sculpt.export.runtimes import RUNTIMES, Runner, by_torch, missing_runtime
from sculpt.pruning.masks import dense_masks

BATCHES = (1, 64)
TURNS = 7
LEAST_SECONDS = 0.01
"""Of a network's turn: a small one is run several times in it."""
PAUSE_SECONDS = 0.005
"""Before a turn: threads of other runtimes wait actively for a while after their last work."""

NETWORKS = {
    "compact": "without the channels that no path uses; C also leaves out the zeros",
    "wide": "with every pruned weight as a zero",
    "base": "the dense network that it was ranked against",
}

Contender = tuple[str, Runtime]
"""A network and what runs it."""


def time_side_by_side(
    model: nn.Module,
    masks: Masks,
    images: Tensor,
    base: nn.Module | None = None,
    *,
    batches: tuple[int, ...] = BATCHES,
    turns: int = TURNS,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Return how long a trained network takes in each runtime, on one thread and on all.

    The runtimes take turns, so that what else the machine does falls on all of them.

    Args:
        model:
            In eval mode, float32, on the CPU; it is not changed.
        masks:
            Keyed by parameter name.
        images:
            (N, ...); they are repeated to fill a batch.
        base:
            The dense base; its values do not matter.
        batches:
            Numbers of images that are given at a time.
        turns:
            Of which the median is taken.
        on_row:
            Called with each row of what is returned, as soon as it is known.

    Returns:
        A JSON document: `cpu`, `threads` (all there are), `versions`, `rows` and `missing`. A row
        has `network` (see `NETWORKS`), `runtime`, `batch`, `threads`, `seconds` (for one image:
        `median`, `low` and `high`, the 10th and 90th percentile of the turns) and `ratio`, how
        many times as fast it is as the `reference`, the wide network in ONNX Runtime (PyTorch
        where that is missing) with the same batch and threads. `missing` lists runtimes that are
        not there (`runtime`, `reason`).

    Raises:
        InputError: `turns` is below 1.
        ExportError: the network cannot be lowered, see `lower`.
    """
    if turns < 1:
        raise InputError(f"the number of turns must be at least 1, but got {turns}")
    missing = {name: reason for name in RUNTIMES if (reason := missing_runtime(name))}
    wide = lower(model, masks, images)
    compact = condense(wide)
    contenders: list[tuple[str, Runtime, Any]] = [
        ("compact", "c", compact),
        ("compact", "onnxruntime", compact),
        ("compact", "torch", compact),
        ("wide", "onnxruntime", wide),
        ("wide", "torch", masked_copy(model, masks)),
    ]
    if base is not None:
        whole = dense_masks(base)
        contenders.append(("base", "onnxruntime", lower(base, whole, images)))
        contenders.append(("base", "torch", masked_copy(base, whole)))
    prepared = {
        (network, runtime): by_torch(what) if runtime == "torch" else RUNTIMES[runtime](what)
        for network, runtime, what in contenders
        if runtime not in missing
    }
    reference: Contender = ("wide", "torch" if "onnxruntime" in missing else "onnxruntime")
    everything = available_threads()
    rows = []
    for threads in sorted({1, everything}):
        runners = {key: start(threads) for key, start in prepared.items()}
        for batch in batches:
            given = images.repeat(-(-batch // len(images)), *[1] * (images.dim() - 1))[:batch]
            with torch_threads(threads):
                seconds = _in_turns(runners, given.contiguous(), turns)
            for key, measured in seconds.items():
                low, middle, high = np.percentile(measured, [10, 50, 90]) / batch
                row = {
                    "network": key[0],
                    "runtime": key[1],
                    "batch": batch,
                    "threads": threads,
                    "seconds": {"median": float(middle), "low": float(low), "high": float(high)},
                    "ratio": float(np.median(np.divide(seconds[reference], measured))),
                }
                on_row(row)
                rows.append(row)
    return {
        "cpu": cpu_name(),
        "threads": everything,
        "versions": _versions(set(RUNTIMES) - set(missing)),
        "reference": {"network": reference[0], "runtime": reference[1]},
        "rows": rows,
        "missing": [{"runtime": name, "reason": reason} for name, reason in missing.items()],
    }


def available_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_turns(
    runners: dict[Contender, Runner], images: Tensor, turns: int
) -> dict[Contender, list[float]]:
    """Return the seconds of one run of each, once for each turn."""
    runs = {}
    for key, run in runners.items():
        run(images)
        begin = time.perf_counter()
        run(images)
        runs[key] = max(1, round(LEAST_SECONDS / (time.perf_counter() - begin)))
    seconds: dict[Contender, list[float]] = {key: [] for key in runners}
    for _ in range(turns):
        for key, run in runners.items():
            time.sleep(PAUSE_SECONDS)
            run(images)  # to be in the caches, and its threads awake
            begin = time.perf_counter()
            for _ in range(runs[key]):
                run(images)
            seconds[key].append((time.perf_counter() - begin) / runs[key])
    return seconds


def _versions(runtimes: set[Runtime]) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    if "onnxruntime" in runtimes:
        found["onnxruntime"] = version("onnxruntime")
    return found
