"""Captured steps, as far as they can be tried without a GPU: by stand-ins for torch's calls."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from small_training import make_network, recipe

from sculpt.training import capture as module
from sculpt.training.capture import capture
from sculpt.training.trainer import Trainer


@pytest.fixture
def trainer(splits):
    model, masks = make_network(density=0.5)
    return Trainer(model, masks, splits.train, recipe(), "float32", 0)


@pytest.fixture
def cuda(monkeypatch):
    """Streams that are only names; `cuda.current` is one of them."""
    cuda = SimpleNamespace(current="default", registered=[], breaks=False)

    @contextmanager
    def stream(name):
        before, cuda.current = cuda.current, name
        try:
            yield
        finally:
            cuda.current = before

    @contextmanager
    def graph(_):
        before, cuda.current = cuda.current, "private"
        yield
        if cuda.breaks:  # as torch does, which does not come to the next line
            raise RuntimeError("operation failed due to a previous error during capture")
        cuda.current = before

    class Waiting(str):
        def wait_stream(self, other):
            pass

    cuda.current = Waiting("default")
    made = SimpleNamespace(register_generator_state=cuda.registered.append)
    for name, stand_in in {
        "current_stream": lambda: cuda.current,
        "Stream": lambda: Waiting("side"),
        "stream": stream,
        "graph": graph,
        "CUDAGraph": lambda: made,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return cuda


def test_a_broken_capture_leaves_the_stream_as_it_was(trainer, cuda):
    cuda.breaks = True
    with pytest.raises(RuntimeError, match="during capture"):
        capture(trainer, torch.arange(50))
    assert cuda.current == "default"


@pytest.mark.parametrize(("version", "registers"), [("2.10.0", True), ("2.14.1+cu130", False)])
def test_generators_are_registered_where_torch_does_not_do_it(
    trainer, cuda, monkeypatch, version, registers
):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    capture(trainer, torch.arange(50))
    assert cuda.registered == ([trainer.generator] if registers else [])


@pytest.mark.parametrize(
    ("eager", "captured", "name"),
    [([5, 1, 5], [3, 3, 2], "eager"), ([2, 2, 2], [9, 9, 1], "cuda_graph")],
)
def test_the_least_of_three_timings_decides_and_is_recorded(
    trainer, monkeypatch, eager, captured, name
):
    def replay(batch):
        trainer.update_eagerly(batch)

    times = iter(eager + captured)
    monkeypatch.setattr(module, "capture", lambda *_: replay)
    monkeypatch.setattr(module, "_seconds_per_step", lambda *_: float(next(times)))
    found = module._choose_measured(trainer)
    assert found == {
        "name": name,
        "seconds_per_step": {"eager": min(eager), "cuda_graph": min(captured)},
    }
    assert trainer.update is (replay if name == "cuda_graph" else None)
