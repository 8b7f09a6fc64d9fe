"""Training steps captured as one CUDA graph, where that is faster and computes the same.

Small networks on a GPU spend their time launching operations; a captured step is one launch.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Literal, NotRequired, TypedDict

import torch
from torch import Tensor

from sculpt.training.memory import release_memory
from sculpt.training.trainer import Trainer

WARM_UP_STEPS = 3
TIMED_STEPS, TIMINGS = 10, 3
"""The least of so many timings counts, because one alone is noisy."""
FEWEST_STEPS = 200
"""Shorter runs do not earn back the cost of capturing."""
LARGEST_DIFFERENCE = 0.02
"""Relative difference of the losses after a captured and an eager step, which may round
differently because they may use different algorithms."""


EngineName = Literal["eager", "cuda_graph"]


class ChosenEngine(TypedDict):
    """How steps are taken, and why: the reason, or the measured times of both ways."""

    name: EngineName
    reason: NotRequired[str]
    seconds_per_step: NotRequired[dict[EngineName, float]]


def choose_engine(trainer: Trainer, *, fewest_steps: int = FEWEST_STEPS) -> ChosenEngine:
    """Make a trainer take captured steps from now on, if they are measured to be faster.

    The trainer's state is restored afterwards. On any fault, and for runs shorter than
    `fewest_steps`, steps stay eager.
    """
    steps = trainer.recipe.epochs * trainer.steps_per_epoch
    if trainer.device.type != "cuda":
        return {"name": "eager", "reason": "no CUDA device"}
    if steps < fewest_steps or trainer.micro_batches > 1 or trainer.offload:
        return {"name": "eager", "reason": "a short run, or one that is short of memory"}
    # Streams and graphs are made on the current device.
    with torch.cuda.device(trainer.device):
        return _choose_measured(trainer)


def _choose_measured(trainer: Trainer) -> ChosenEngine:
    batch = torch.arange(trainer.batch_size, device=trainer.device)
    before = trainer.state()
    trainer.model.train()
    try:
        captured = capture(trainer, batch)
        losses, seconds = [], []
        for update in (trainer.update_eagerly, captured):
            trainer.restore(before)
            losses.append(_loss_after(trainer, update, batch))
            seconds.append(min(_seconds_per_step(update, batch) for _ in range(TIMINGS)))
        difference = abs(losses[0] - losses[1]) / max(losses[0], 1e-3)
        if not difference <= LARGEST_DIFFERENCE:  # NaN is a difference, too
            return {"name": "eager", "reason": f"captured steps differ by {difference:.2%}"}
        both: dict[EngineName, float] = {"eager": seconds[0], "cuda_graph": seconds[1]}
        if seconds[1] < seconds[0]:
            trainer.update = captured
        return {"name": min(both, key=both.__getitem__), "seconds_per_step": both}
    except RuntimeError as error:
        forget_capture(trainer)
        return {"name": "eager", "reason": f"capturing failed: {str(error).splitlines()[0]}"}
    finally:
        trainer.optimizer.zero_grad()
        trainer.restore(before)
        # The eager steps' activations: a captured step has memory of its own.
        release_memory(trainer.device)


def forget_capture(trainer: Trainer) -> None:
    """Free the generators from an aborted capture, which would keep them."""
    trainer.generator = torch.Generator(trainer.device)  # its state is restored
    default = torch.cuda.default_generators[torch.cuda.current_device()]
    default.graphsafe_set_state(default.clone_state())


def capture(trainer: Trainer, batch: Tensor) -> Callable[[Tensor], None]:
    """Record one `trainer.update_eagerly`, and return a function that replays it.

    The warm-up changes weights, momentum and generator; the caller restores them.
    """
    indices = batch.clone()
    # CUDA graphs require a few steps on another stream, then new gradients in the graph's own
    # memory.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            trainer.update_eagerly(indices)
    torch.cuda.current_stream().wait_stream(stream)
    trainer.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    if torch.__version__ < "2.14":  # from then on torch does, and this prints that it is old
        graph.register_generator_state(trainer.generator)
    # The stream twice, because a capture that is broken off leaves its own one current.
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
        trainer.update_eagerly(indices)

    def replay(batch: Tensor) -> None:
        indices.copy_(batch)
        graph.replay()

    return replay


def _loss_after(trainer: Trainer, update: Callable[[Tensor], None], batch: Tensor) -> float:
    """Measure the loss of a second step, which depends on the first one's update."""
    update(batch)
    trainer.loss_sum.zero_()
    update(batch)
    return trainer.loss_sum.item()


def _seconds_per_step(update: Callable[[Tensor], None], batch: Tensor) -> float:
    torch.cuda.synchronize()
    start = perf_counter()
    for _ in range(TIMED_STEPS):
        update(batch)
    torch.cuda.synchronize()
    return (perf_counter() - start) / TIMED_STEPS
