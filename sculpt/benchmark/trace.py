"""Where a device's time went, read from a trace of torch's profiler."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from sculpt.benchmark.kernels import CLASSES, OPTIMIZER, classify

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of a trace; annotations of the GPU's timeline are none, because they span kernels."""

MICROSECOND = 1e-6


@dataclass(frozen=True)
class Spent:
    """What all calls of one kernel or operator took."""

    name: str
    kind: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Activity:
    """What a device did in a while; on the CPU, what torch's operators did."""

    wall_seconds: float
    """Of the host, recording included."""
    busy_seconds: float
    """In which at least one kernel, copy or operator ran."""
    spent: list[Spent]
    """By name, the longest first. Of operators, the time in them and in nothing within them."""
    to_device: int
    """Bytes copied from the host."""
    from_device: int
    """Bytes copied to the host."""

    @property
    def seconds(self) -> float:
        """Sum over all kernels; more than `busy_seconds` where some ran side by side."""
        return sum(one.seconds for one in self.spent)

    @property
    def count(self) -> int:
        """Kernels, copies and fills; on the CPU calls of operators."""
        return sum(one.count for one in self.spent)

    def shares(self) -> dict[str, float]:
        """Return each class's share of the time."""
        total = self.seconds or 1.0
        found = dict.fromkeys(CLASSES, 0.0)
        for one in self.spent:
            found[one.kind] += one.seconds / total
        return found


def record(work: Callable[[], object], device: torch.device) -> Activity:
    """Do some work under torch's profiler and return what the device did meanwhile.

    Raises:
        RuntimeError: the profiler cannot record, or wrote something else than a trace.
    """
    if device.type != "cuda":
        return _record(work, device, [ProfilerActivity.CPU])
    # Without operators, which slow the host down and are not read; unless it needs them.
    found = _record(work, device, [ProfilerActivity.CUDA])
    if found.count:
        return found
    return _record(work, device, [ProfilerActivity.CPU, ProfilerActivity.CUDA])


def _record(
    work: Callable[[], object], device: torch.device, activities: list[ProfilerActivity]
) -> Activity:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    # Without `acc_events` torch 2.11 warns that cycles are forgotten; there is only one here.
    with profile(activities=activities, acc_events=True) as profiler:
        start = perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
        wall = perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        text = file.read_text(encoding="utf-8", errors="replace")
    try:
        events = json.loads(text, strict=False)["traceEvents"]
    except (ValueError, KeyError) as error:
        raise RuntimeError(f"the profiler's trace cannot be read: {error}") from error
    return read_trace(events, device.type, wall)


def read_trace(events: list[dict[str, Any]], device_type: str, wall_seconds: float) -> Activity:
    """Return what a trace holds of a kind of device.

    Args:
        events:
            Of a trace in Chrome's format.
        device_type:
            `cpu` looks at operators, all others at kernels.
        wall_seconds:
            What the recorded work took.
    """
    wanted = ("cpu_op",) if device_type == "cpu" else ON_DEVICE
    chosen = [event for event in events if event.get("ph") == "X" and event.get("cat") in wanted]
    copied = {"HtoD": 0, "DtoH": 0}
    for event in chosen:
        if event["cat"] == "gpu_memcpy":
            for way in copied:
                copied[way] += int(event["args"].get("bytes", 0)) if way in event["name"] else 0
    timed = _self_times(chosen) if device_type == "cpu" else _durations(chosen)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for name, kind, taken in timed:
        counts[name, kind] += 1
        seconds[name, kind] += taken
    spent = [Spent(*key, counts[key], seconds[key]) for key in seconds]
    spent.sort(key=lambda one: one.seconds, reverse=True)
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in chosen]
    return Activity(
        wall_seconds, _union(spans) * MICROSECOND, spent, copied["HtoD"], copied["DtoH"]
    )


def _durations(events: list[dict[str, Any]]) -> Iterable[tuple[str, str, float]]:
    for event in events:
        yield event["name"], classify(event["name"]), event["dur"] * MICROSECOND


def _self_times(events: list[dict[str, Any]]) -> Iterable[tuple[str, str, float]]:
    """Yield (name, class, seconds) of operators, without the operators that they called.

    What an optimiser calls is the optimiser's.
    """
    threads: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        threads[event["tid"]].append(event)
    for found in threads.values():
        found.sort(key=lambda event: (event["ts"], -event["dur"]))
        stack: list[tuple[float, int, str]] = []  # end, place in `own`, class
        own: list[tuple[str, str, float]] = []
        for event in found:
            while stack and event["ts"] >= stack[-1][0]:
                stack.pop()
            name, taken, kind = event["name"], event["dur"], classify(event["name"])
            if stack:
                end, caller, around = stack[-1]
                kind = around if around == OPTIMIZER else kind
                # Clocks round: one that is called must not end after its caller.
                taken = min(taken, end - event["ts"])
                own[caller] = (*own[caller][:2], own[caller][2] - taken)
            stack.append((event["ts"] + taken, len(own), kind))
            own.append((name, kind, taken))
        for name, kind, taken in own:
            yield name, kind, max(0.0, taken) * MICROSECOND


def _union(spans: list[tuple[float, float]]) -> float:
    """Return how much of a line some spans cover."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
