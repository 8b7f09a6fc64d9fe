"""Latency of a trained network as it is exported: for one image, or in all runtimes in turns."""

import os
import platform
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
import torch
from torch import Tensor, nn

from sculpt.config.search import Runtime
from sculpt.errors import ExportError, InputError
from sculpt.export.condensing import condense
from sculpt.export.formats import Network
from sculpt.export.lowering import lower, masked_copy
from sculpt.export.manifest import Latency, LatencyRow
from sculpt.export.program import Program
from sculpt.export.runtimes import (
    RUNTIMES,
    Prepared,
    Runner,
    by_c,
    by_onnxruntime,
    by_torch,
    missing_runtime,
)
from sculpt.pruning.masks import Masks, dense_masks

LEAST_SECONDS = 0.3
LEAST_REPEATS = 5
"""Minima of a measurement."""
WARM_UP = 3

BATCHES = (1, 64)
"""Numbers of images at a time where runtimes take turns."""
TURNS = 7
TURN_SECONDS = 0.01
"""Length of a network's turn: a small network runs several times."""
PAUSE_SECONDS = 0.005
"""Before a turn: idle threads of other runtimes spin for a while after their last work."""

Contender = tuple[str, Runtime]
"""A network, and its runtime."""


def measure_latency(
    model: nn.Module,
    masks: Masks,
    example_input: Tensor,
    *,
    runtime: Runtime = "torch",
) -> float:
    """Return the seconds that a trained network takes for one image, the first of `example_input`.

    It is condensed: batch norms folded, without the channels that no kept weight uses. PyTorch and
    ONNX Runtime compute the zeros that stay in it; its C code does not. It runs in float32 on one
    thread of this machine's CPU, wherever the network was trained. So a Pareto front over latency
    differs between machines, and on one machine with its load. PyTorch also runs a network that
    cannot be traced, as it is.

    Raises:
        InputError: the runtime is missing, or the masks do not fit or were not applied.
        ExportError: the network cannot be exported for that runtime.
    """
    if missing := missing_runtime(runtime):
        raise InputError(missing)
    image = example_input[:1].detach().to("cpu", torch.float32, copy=True).contiguous()
    with torch_threads(1):
        try:
            prepared = RUNTIMES[runtime](condense(lower(model, masks, image)))
        except ExportError:
            if runtime != "torch":
                raise
            prepared = by_torch(masked_copy(model, masks, torch.float32))
        return _median_seconds(prepared(1), image)


def time_side_by_side(
    network: Network,
    base: nn.Module | None = None,
    *,
    turns: int = TURNS,
    on_row: Callable[[LatencyRow], None] = lambda row: None,
) -> Latency:
    """Time a trained network in each runtime, on one thread and on all.

    The runtimes take turns, so that other load on the machine affects all of them. Images are
    repeated to fill a batch; the values of the dense base do not matter. `on_row` is called with
    each row as soon as it is known.

    Returns:
        The times, relative to the wide network's in ONNX Runtime (PyTorch if that is missing).

    Raises:
        InputError: `turns` is below 1.
        ExportError: the network cannot be lowered, see `lower`.
    """
    if turns < 1:
        raise InputError(f"the number of turns must be at least 1, but got {turns}")
    missing = {runtime: why for runtime in RUNTIMES if (why := missing_runtime(runtime))}
    prepared = _prepared(network, base, missing)
    reference: Contender = ("wide", "torch" if "onnxruntime" in missing else "onnxruntime")
    everything, images = available_threads(), network.images
    rows: list[LatencyRow] = []
    for threads in sorted({1, everything}):
        runners = {key: start(threads) for key, start in prepared.items()}
        for batch in BATCHES:
            given = images.repeat(-(-batch // len(images)), *[1] * (images.dim() - 1))[:batch]
            with torch_threads(threads):
                seconds = _in_turns(runners, given.contiguous(), turns)
            for (name, runtime), measured in seconds.items():
                low, middle, high = (np.percentile(measured, [10, 50, 90]) / batch).tolist()
                row: LatencyRow = {
                    "network": name,
                    "runtime": runtime,
                    "batch": batch,
                    "threads": threads,
                    "seconds": {"median": middle, "low": low, "high": high},
                    "ratio": float(np.median(np.divide(seconds[reference], measured))),
                }
                on_row(row)
                rows.append(row)
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    if "onnxruntime" not in missing:
        versions["onnxruntime"] = version("onnxruntime")
    return {
        "cpu": cpu_name(),
        "threads": everything,
        "versions": versions,
        "reference": {"network": reference[0], "runtime": reference[1]},
        "rows": rows,
        "missing": [{"runtime": runtime, "reason": why} for runtime, why in missing.items()],
    }


def _prepared(
    network: Network, base: nn.Module | None, missing: Container[Runtime]
) -> dict[Contender, Prepared]:
    """Prepare each network for each runtime: C for the compact one alone."""
    images, wide = network.images, lower(network.model, network.masks, network.images)
    compact = condense(wide)
    # For each network its program, and what PyTorch runs.
    networks: dict[str, tuple[Program, Program | nn.Module]] = {
        "compact": (compact, compact),
        "wide": (wide, masked_copy(network.model, network.masks, torch.float32)),
    }
    if base is not None:
        whole = dense_masks(base)
        networks["base"] = lower(base, whole, images), masked_copy(base, whole, torch.float32)
    found: dict[Contender, Prepared] = {}
    for name, (program, module) in networks.items():
        if name == "compact" and "c" not in missing:
            found[name, "c"] = by_c(program)
        if "onnxruntime" not in missing:
            found[name, "onnxruntime"] = by_onnxruntime(program)
        found[name, "torch"] = by_torch(module)
    return found


def describe_latency(runtime: Runtime) -> str:
    """Describe in words how a latency is measured here: in which runtime, and on which CPU."""
    return f"{runtime}, batch 1, 1 thread, {cpu_name()}"


def cpu_name() -> str:
    """Return the name of this machine's processor, as far as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _median_seconds(run: Runner, image: Tensor) -> float:
    for _ in range(WARM_UP):
        run(image)
    seconds: list[float] = []
    begin = start = perf_counter()
    while len(seconds) < LEAST_REPEATS or start - begin < LEAST_SECONDS:
        run(image)
        end = perf_counter()
        seconds.append(end - start)
        start = end
    return median(seconds)


def available_threads() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_turns(
    runners: dict[Contender, Runner], images: Tensor, turns: int
) -> dict[Contender, list[float]]:
    """Return the seconds of one run of each contender, once for each turn."""
    runs = {}
    for key, run in runners.items():
        run(images)
        begin = perf_counter()
        run(images)
        runs[key] = max(1, round(TURN_SECONDS / (perf_counter() - begin)))
    seconds: dict[Contender, list[float]] = {key: [] for key in runners}
    for _ in range(turns):
        for key, run in runners.items():
            sleep(PAUSE_SECONDS)
            run(images)  # to be in the caches, and its threads awake
            begin = perf_counter()
            for _ in range(runs[key]):
                run(images)
            seconds[key].append((perf_counter() - begin) / runs[key])
    return seconds
