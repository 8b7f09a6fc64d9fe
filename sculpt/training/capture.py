"""A training step as one CUDA graph, where that is faster and computes the same.

Small networks on a GPU spend their time launching kernels. A captured step is launched at once.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Literal, NotRequired, TypedDict

import torch
from torch import Tensor

from sculpt.training.memory import release_memory
from sculpt.training.trainer import Trainer

WARM_UP_STEPS = 3
TIMED_STEPS = 10
FEWEST_STEPS = 200
"""Shorter runs do not earn back what capturing costs."""
LARGEST_DIFFERENCE = 0.02
"""Relative, of the loss after one step, between the two ways to take it: they may choose other
algorithms, which round otherwise."""


EngineName = Literal["eager", "cuda_graph"]


class ChosenEngine(TypedDict):
    """How steps are taken, and why: either the reason, or what both ways were measured to take."""

    name: EngineName
    reason: NotRequired[str]
    seconds_per_step: NotRequired[dict[EngineName, float]]


def choose_engine(trainer: Trainer, *, fewest_steps: int = FEWEST_STEPS) -> ChosenEngine:
    """Let a trainer take captured steps from now on, if that is measured to be faster.

    The trainer's state is what it was before. Whatever goes wrong, it takes its steps eagerly. It
    is not tried for runs shorter than `fewest_steps`.
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
            seconds.append(_seconds_per_step(update, batch))
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
    """Free the generators from a capture that was broken off: they would stay a part of it."""
    trainer.generator = torch.Generator(trainer.device)  # its state is restored
    default = torch.cuda.default_generators[torch.cuda.current_device()]
    default.graphsafe_set_state(default.clone_state())


def capture(trainer: Trainer, batch: Tensor) -> Callable[[Tensor], None]:
    """Return a function like `trainer.update_eagerly` that replays what that did once.

    Weights, momentum and the generator are moved by the warm-up; the caller restores them.
    """
    indices = batch.clone()
    # As CUDA graphs ask for it: a few steps on another stream, then gradients made anew inside
    # the graph's own memory.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            trainer.update_eagerly(indices)
    torch.cuda.current_stream().wait_stream(stream)
    trainer.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(trainer.generator)
    with torch.cuda.graph(graph):
        trainer.update_eagerly(indices)

    def replay(batch: Tensor) -> None:
        indices.copy_(batch)
        graph.replay()

    return replay


def _loss_after(trainer: Trainer, update: Callable[[Tensor], None], batch: Tensor) -> float:
    """Return the loss of a second step, which shows what the first one did to the weights."""
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
