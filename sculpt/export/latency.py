"""How long a trained network takes for one image, once it is exported."""

import copy
from contextlib import suppress
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from sculpt.compaction import compact
from sculpt.errors import CompactionError, InputError
from sculpt.pruning.masks import Masks, apply_masks

LEAST_SECONDS = 0.3
"""Of measuring, unless the number of repeats is given."""
LEAST_REPEATS = 5
WARM_UP = 3


def measure_latency(
    model: nn.Module, masks: Masks, example_input: Tensor, *, repeats: int | None = None
) -> float:
    """Return the seconds that a trained network takes for one image.

    They are those of the exported program (`torch.export`) of the compacted network: without the
    channels that no kept weight uses, but with the zeros among those that stay. It runs in
    float32 on one thread of this machine's CPU, wherever the network was trained, by PyTorch and
    by no faster runtime. So a study whose front is over it has another front on another machine,
    and on the same machine while that is busy.

    Args:
        model:
            On any device; it is not changed.
        masks:
            Keyed by parameter name.
        example_input:
            (N, ...), of which the first is the image.
        repeats:
            Runs of which the median is taken; by default as many as take 0.3 s, at least 5.

    Raises:
        InputError: `repeats` is below 1, or the masks do not fit the model.
    """
    if repeats is not None and repeats < 1:
        raise InputError(f"repeats must be at least 1, but got {repeats}; leave it out for 0.3 s")
    image = example_input[:1].detach().to("cpu", torch.float32, copy=True).contiguous()
    network = _deployed(model, masks, image)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (image,)).module()
            return _median_seconds(program, image, repeats)
    finally:
        torch.set_num_threads(threads)


def _deployed(model: nn.Module, masks: Masks, image: Tensor) -> nn.Module:
    """Return a compact copy for inference on the CPU, or a whole one where none can be made."""
    network = copy.deepcopy(model).to("cpu", torch.float32)
    kept = {name: mask.cpu() for name, mask in masks.items()}
    apply_masks(network, kept)
    with suppress(CompactionError):
        # Around it is what only training needs, see `CompactNetwork`.
        network = compact(network, kept, image, block=1).model.get_submodule("network")
    # In which the CPU's convolutions take two thirds of the time (ResNet and VGG16, batch 1).
    return network.to(memory_format=torch.channels_last).eval()


def _median_seconds(program: nn.Module, image: Tensor, repeats: int | None) -> float:
    for _ in range(WARM_UP):
        program(image)
    seconds: list[float] = []
    begin = start = perf_counter()
    while len(seconds) < (repeats or LEAST_REPEATS) or (
        repeats is None and start - begin < LEAST_SECONDS
    ):
        program(image)
        end = perf_counter()
        seconds.append(end - start)
        start = end
    return median(seconds)
