"""A run that is killed goes on, and ends bit for bit as one that was not."""

import sys
from dataclasses import replace

import pytest
import torch
from networks import equal
from safetensors import safe_open
from safetensors.torch import save_file
from small_training import make_network, recipe

from sculpt.errors import SculptWarning
from sculpt.training import loop as loop_module
from sculpt.training.loop import train
from sculpt.training.trainer import Trainer
from sculpt.training.training_checkpoint import TrainingCheckpoint


class StopError(Exception):
    """Ends a run from within, as a dying process would."""


def run(splits, settings, path, stop_after=None, every=0.0, signal_=StopError):
    model, masks = make_network(density=0.5)
    moves = settings.moving.rule != "static"
    if settings.moving.rule == "gradual_magnitude":
        model, masks = make_network()
    heard = []

    def listen(epoch):
        heard.append(epoch.epoch)
        if len(heard) == stop_after:
            raise signal_

    checkpoint = TrainingCheckpoint(path, every) if path else None
    try:
        budget = sum(mask.numel() for mask in masks.values()) // 2 if moves else None
        trained = train(
            *(model, masks, splits, settings),
            seed=3,
            budget=budget,
            on_epoch=listen,
            checkpoint=checkpoint,
        )
    except (StopError, KeyboardInterrupt):
        return None, None, heard
    return model, trained, heard


def without_times(history):
    return [replace(epoch, seconds=0.0, images_per_second=0.0) for epoch in history]


RECIPES = [
    {"momentum": 0.9, "nesterov": True, "schedule": "one_cycle", "flip": True, "translate": 2},
    {"momentum": 0.0, "schedule": "step", "cutout": 3},
    {"weight_average": 0.9, "max_gradient_norm": 0.5, "evaluate_every": 2},
    {"momentum": 0.9, "weight_average": 0.9, "moving": {"rule": "rigl", "every": 2, "until": 0.9}},
    {"momentum": 0.9, "moving": {"rule": "set", "every": 2, "scope": "global"}},
    {"momentum": 0.9, "moving": {"rule": "gradual_magnitude", "every": 2}},
    {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "mixup": 0.5,
        "cutmix": 1.0,
    },
    {"optimizer": "adamw", "moving": {"rule": "rigl", "every": 2}, "warm_up": 0.2},
]


@pytest.mark.parametrize("settings", RECIPES)
@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_an_interrupted_run_ends_bit_for_bit_as_one_that_was_not(
    splits, tmp_path, settings, stop_after
):
    settings = recipe(epochs=4 if "evaluate_every" not in settings else 8, **settings)
    whole, expected, _ = run(splits, settings, None)
    path = tmp_path / "deep" / "training.safetensors"
    assert run(splits, settings, path, stop_after)[0] is None
    resumed, trained, heard = run(splits, settings, path)
    assert equal(whole.state_dict(), resumed.state_dict())
    assert without_times(trained.history) == without_times(expected.history)
    assert len(trained.facts.resumed_at) == 1
    assert heard == [epoch.epoch for epoch in expected.history]  # those before are told again


@pytest.mark.parametrize("every", [1, pytest.param(29, marks=pytest.mark.slow)])
def test_an_interrupt_between_any_two_instructions_loses_an_epoch_at_most(splits, tmp_path, every):
    """State and progress are saved together, wherever in the loop the interrupt comes."""
    settings = recipe(epochs=3, translate=1, weight_average=0.8)
    whole, expected, _ = run(splits, settings, None)
    loop = loop_module._train_epochs.__code__
    moments = [7, 180, 400] if every == 1 else range(0, 10**6, every)
    for moment in moments:
        path, left = tmp_path / f"{moment}.safetensors", [moment]

        def trace(frame, event, _, left=left):
            if frame.f_code is not loop:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left[0] -= 1
                if left[0] == -1:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            ended = run(splits, settings, path)
        finally:
            sys.settrace(before)
        if ended[1] is not None:  # there are not so many
            break
        resumed, trained, _ = run(splits, settings, path)
        assert equal(whole.state_dict(), resumed.state_dict()), moment
        assert without_times(trained.history) == without_times(expected.history), moment
    assert every == 1 or moment > 300


def test_interrupted_twice_and_resumed_when_all_is_done(splits, tmp_path):
    settings = recipe(epochs=5, translate=1, weight_average=0.8)
    whole, _, _ = run(splits, settings, None)
    path = tmp_path / "training.safetensors"
    for stop_after in (1, 3):
        run(splits, settings, path, stop_after)
    resumed, trained, _ = run(splits, settings, path)
    assert trained.facts.resumed_at == [1, 3]
    again, finished, _ = run(splits, settings, path)
    assert equal(whole.state_dict(), resumed.state_dict())
    assert equal(whole.state_dict(), again.state_dict())  # nothing is left to train
    assert finished.facts.resumed_at == [1, 3, 5]
    assert (
        finished.facts.engine
        == trained.facts.engine
        == {
            "name": "eager",
            "reason": "no CUDA device",
        }
    )


def test_ctrl_c_writes_the_last_whole_epoch_down(splits, tmp_path):
    path = tmp_path / "training.safetensors"
    settings = recipe(epochs=4)
    run(splits, settings, path, 2, every=1e9, signal_=KeyboardInterrupt)
    _, trained, _ = run(splits, settings, path, every=1e9)
    assert trained.facts.resumed_at == [2]


def test_it_is_not_written_more_often_than_asked(splits, tmp_path, monkeypatch):
    """Nor is the state copied to the host."""
    packed, pack = [], Trainer.pack
    monkeypatch.setattr(Trainer, "pack", lambda self, state: packed.append(1) or pack(self, state))
    path = tmp_path / "training.safetensors"
    run(splits, recipe(epochs=4), path, stop_after=3, every=1e9)
    assert not path.exists()
    assert not packed
    run(splits, recipe(epochs=4), path, every=1e9)
    assert path.exists()  # at the end, in any case
    assert len(packed) == 1


def test_a_run_that_diverged_is_not_gone_on_with(splits, tmp_path):
    path = tmp_path / "training.safetensors"
    settings = recipe(epochs=3, learning_rate=1e30)
    first = run(splits, settings, path)[1]
    second = run(splits, settings, path)[1]
    assert first.diverged
    assert second.diverged
    assert len(second.history) == 1


def of_an_older_format(path):
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(TrainingCheckpoint(path).read()[0], path, header | {"format": "sculpt-checkpoint-1"})


def of_another(name):
    def change(path):
        checkpoint = TrainingCheckpoint(path)
        state, progress = checkpoint.read()
        assert name in state
        checkpoint.write(state | {name: torch.zeros(16, dtype=torch.uint8)}, progress)

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "must be readable to go on from it"),
        (lambda path: path.write_bytes(b"no tensors"), "must be readable to go on from it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "must be readable to go on"),
        (of_an_older_format, "'sculpt-checkpoint-1', not 'sculpt-checkpoint-2'"),
        (of_another("generator"), "same network and kind of device .* generator;"),
        (of_another("model/classifier.bias"), "same network and kind .* model/classifier.bias;"),
    ],
    ids=["empty", "other", "cut", "format", "device", "network"],
)
def test_a_checkpoint_that_does_not_fit_is_a_warning_and_a_new_start(
    splits, tmp_path, damage, message
):
    path = tmp_path / "training.safetensors"
    settings = recipe(epochs=3)
    whole, _, _ = run(splits, settings, None)
    run(splits, settings, path, stop_after=2)
    damage(path)
    with pytest.warns(SculptWarning, match=message):
        resumed, trained, _ = run(splits, settings, path)
    assert trained.facts.resumed_at == []
    assert equal(whole.state_dict(), resumed.state_dict())
