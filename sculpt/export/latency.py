"""How long a trained network takes for one image, once it is exported."""

import copy
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from sculpt.config.search import Runtime
from sculpt.errors import ExportError, InputError
from sculpt.export.condensing import condense
from sculpt.export.lowering import lower
from sculpt.export.program import Program
from sculpt.export.runtimes import RUNTIMES, Runner, by_torch, missing_runtime
from sculpt.pruning.masks import Masks, apply_masks

LEAST_SECONDS = 0.3
"""Of measuring, unless the number of repeats is given."""
LEAST_REPEATS = 5
WARM_UP = 3


def measure_latency(
    model: nn.Module,
    masks: Masks,
    example_input: Tensor,
    *,
    runtime: Runtime = "torch",
    repeats: int | None = None,
) -> float:
    """Return the seconds that a trained network takes for one image.

    They are those of the compact network: batch norms folded, without the channels that no kept
    weight uses. PyTorch and ONNX Runtime compute the zeros that stay in it; its C code does not.
    It runs in float32 on one thread of this machine's CPU, wherever the network was trained. So a
    study whose front is over it has another front on another machine, and on the same machine
    while that is busy.

    Args:
        model:
            On any device; it is not changed. PyTorch also runs one that cannot be traced, as it
            is.
        masks:
            Keyed by parameter name.
        example_input:
            (N, ...), of which the first is the image.
        runtime:
            What runs it.
        repeats:
            Runs of which the median is taken; by default as many as take 0.3 s, at least 5.

    Raises:
        InputError: `repeats` is below 1, the runtime is not there, or the masks do not fit.
        ExportError: the network cannot be exported for that runtime.
    """
    if repeats is not None and repeats < 1:
        raise InputError(f"repeats must be at least 1, but got {repeats}; leave it out for 0.3 s")
    if missing := missing_runtime(runtime):
        raise InputError(missing)
    image = example_input[:1].detach().to("cpu", torch.float32, copy=True).contiguous()
    with torch_threads(1):
        return _median_seconds(_runner(model, masks, image, runtime), image, repeats)


def describe_latency(runtime: Runtime) -> str:
    """Return in words how a latency is measured here: what ran the network, and on which CPU."""
    return f"{runtime}, batch 1, 1 thread, {cpu_name()}"


def cpu_name() -> str:
    """Return the name of this machine's processor, as far as the system tells it."""
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


def masked_copy(model: nn.Module, masks: Masks) -> nn.Module:
    """Return a network as it is, in eval mode and float32 on the CPU, pruned weights 0."""
    network = copy.deepcopy(model).to("cpu", torch.float32).eval()
    apply_masks(network, {name: mask.cpu() for name, mask in masks.items()})
    return network


def _runner(model: nn.Module, masks: Masks, image: Tensor, runtime: Runtime) -> Runner:
    try:
        program: Program = condense(lower(model, masks, image))
    except ExportError:
        if runtime != "torch":
            raise
        return by_torch(masked_copy(model, masks))(1)
    return RUNTIMES[runtime](program)(1)


def _median_seconds(run: Runner, image: Tensor, repeats: int | None) -> float:
    for _ in range(WARM_UP):
        run(image)
    seconds: list[float] = []
    begin = start = perf_counter()
    while len(seconds) < (repeats or LEAST_REPEATS) or (
        repeats is None and start - begin < LEAST_SECONDS
    ):
        run(image)
        end = perf_counter()
        seconds.append(end - start)
        start = end
    return median(seconds)
