"""What a step does: weight averages, gradient norms, parts of batches, and memory that runs out."""

import copy
import gc
import weakref
from collections import Counter

import pytest
import torch
from networks import equal
from small_training import make_network, recipe
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sculpt.data import ImageSet
from sculpt.errors import DeviceMemoryError, InputError
from sculpt.training import loop
from sculpt.training.capture import choose_engine
from sculpt.training.loop import train
from sculpt.training.loss_and_error import evaluate
from sculpt.training.memory import is_out_of_memory, within_memory
from sculpt.training.precision import has_native_bfloat16, resolve_precision
from sculpt.training.trainer import Trainer

CPU = torch.device("cpu")


class Hungry(nn.Module):
    """A network that does not fit into memory when its batch is larger than `room`."""

    def __init__(self, network, room, error=torch.OutOfMemoryError, first_call=1):
        super().__init__()
        self.network, self.room, self.error = network, room, error
        self.calls, self.first_call = 0, first_call
        self.largest = 0

    def forward(self, inputs):
        self.calls += 1
        # Some of it has happened already when memory runs out: batch norm has seen the batch.
        logits = self.network(inputs)
        if self.training and len(inputs) > self.room and self.calls >= self.first_call:
            raise self.error("[enforce fail at alloc_cpu.cpp] not enough memory")
        self.largest = max(self.largest, len(inputs))
        return logits


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10))


def trainer_of(model, masks, splits, settings):
    return Trainer(model, masks, splits.train, settings, "float32", 0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("first_call", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_out_of_memory_splits_the_batch_and_changes_nothing_else(splits, error, first_call):
    settings = recipe(momentum=0.9, weight_decay=0.01, label_smoothing=0.1, translate=1)
    plain, hungry = mlp(), Hungry(mlp(), room=13, error=error, first_call=first_call)
    expected = train(plain, {}, splits, settings, seed=3)
    trained = train(hungry, {}, splits, settings, seed=3)
    assert trained.facts.micro_batches == 4  # 50 images: 25, 13
    assert expected.facts.micro_batches == 1
    for mine, yours in zip(hungry.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-6)
    assert [epoch.train_loss for epoch in trained.history] == pytest.approx(
        [epoch.train_loss for epoch in expected.history], rel=1e-5
    )


def test_a_batch_that_batch_norm_needs_whole_is_not_split(splits):
    """Half a batch has other statistics: that would be another network."""
    model, _ = make_network()
    with pytest.raises(DeviceMemoryError, match=r"batches of 50 images do not, .*lower"):
        train(Hungry(model, room=30), {}, splits, recipe(), seed=0)


def test_activations_in_the_hosts_memory_change_nothing(splits):
    """The way out for networks with batch norm, on devices with memory of their own."""
    states = []
    for offload in (False, True):
        model, masks = make_network(density=0.5)
        trainer = trainer_of(model, masks, splits, recipe())
        trainer.offload = offload
        trainer.run_epoch(1)
        states.append(model.state_dict())
    assert equal(*states)


def test_other_errors_are_not_taken_for_memory(splits):
    class Broken(Hungry):
        def forward(self, inputs):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(Broken(mlp(), 1), {}, splits, recipe(), seed=0)
    assert not is_out_of_memory(ValueError("not enough memory"))
    assert is_out_of_memory(MemoryError())
    # What a process on a full GPU gets where it makes its context.
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might"))
    assert is_out_of_memory(
        RuntimeError("GET was unable to find an engine to execute this computation")
    )


def test_what_ran_out_of_memory_is_really_freed():
    held = []

    def allocate():
        tensor = torch.zeros(1000)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        pytest.raises(DeviceMemoryError, match=r"must fit into the memory of cpu.*lower") as caught,
        within_memory(CPU),
    ):
        allocate()
    gc.collect()
    assert held[0]() is None
    assert caught.value.__suppress_context__
    with pytest.raises(DeviceMemoryError), within_memory(CPU):
        torch.empty(2**52)  # as the real allocator has it


def test_evaluation_takes_smaller_batches_when_memory_runs_out(splits):
    class Small(nn.Module):
        room = 7

        def forward(self, inputs):
            if len(inputs) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return inputs.flatten(1)[:, :10]

    small, large = Small(), Small()
    large.room = 1000
    found = evaluate(small, splits.validation)
    assert found == pytest.approx(evaluate(large, splits.validation))


def test_logits_that_are_no_numbers_are_wrong(splits):
    class Silent(nn.Module):
        def forward(self, inputs):
            logits = torch.zeros(len(inputs), 10)
            logits[:, 0] = torch.nan
            return logits

    assert evaluate(Silent(), splits.validation)[1] == 1


def test_the_average_of_the_weights_is_what_is_evaluated_and_kept(splits):
    settings = recipe(epochs=3, weight_average=0.7, learning_rate=0.2)
    model, masks = make_network(density=0.5)
    oracle, _ = make_network(density=0.5)
    trainer = trainer_of(oracle, masks, splits, settings)
    names = [name for name, _ in oracle.named_parameters()]
    average = {name: value.detach().clone() for name, value in oracle.named_parameters()}
    steps = 0
    update = trainer.update_eagerly

    def update_and_average(batch):
        nonlocal steps
        update(batch)
        decay = min(0.7, (1 + steps) / (10 + steps))
        for name, value in oracle.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * value.detach()
        steps += 1

    trainer.update = update_and_average
    for number in (1, 2, 3):
        trainer.run_epoch(number)
    last = {name: value.detach().clone() for name, value in oracle.named_parameters()}
    trained = train(model, masks, splits, settings, seed=0)
    for name in names:
        torch.testing.assert_close(dict(model.named_parameters())[name].detach(), average[name])
    assert any(not torch.allclose(last[name], average[name]) for name in names)
    loss, error = evaluate(model, splits.validation)
    assert (trained.history[-1].val_loss, trained.history[-1].val_error) == (loss, error)
    for name, mask in masks.items():
        assert not dict(model.named_parameters())[name][~mask].any()


def test_long_gradients_are_scaled_down_to_the_given_norm(splits):
    settings = recipe(momentum=0.0, weight_decay=0.0, max_gradient_norm=0.01, learning_rate=1.0)
    model, masks = make_network(density=0.2)
    before = copy.deepcopy(model)
    trainer = trainer_of(model, masks, splits, settings)
    trainer.step(torch.arange(50))
    moved = torch.cat(
        [
            (new - old).detach().flatten()
            for new, old in zip(model.parameters(), before.parameters(), strict=True)
        ]
    )
    # Of the sparse network's own gradient: what is pruned takes no share of the length.
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-4)


def test_a_state_put_back_is_the_state_that_was_taken(splits):
    settings = recipe(translate=1, cutout=2, weight_average=0.9)
    model, masks = make_network(density=0.5)
    trainer = trainer_of(model, masks, splits, settings)
    trainer.run_epoch(1)
    kept = trainer.state()
    trainer.run_epoch(2)
    once = trainer.state()
    trainer.restore(kept)
    assert equal(trainer.state(), kept)
    trainer.run_epoch(2)
    assert equal(trainer.state(), once)
    assert not equal(kept, once)


class Operators(TorchDispatchMode):
    """Counts the calls of operators by their names."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.calls[operator.overloadpacket.__name__] += 1
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_state_is_taken_without_waiting_for_the_device(splits, optimizer):
    """It is copied where it is: no boolean index, which needs a count, and nothing to the host."""
    model, masks = make_network(density=0.5)
    trainer = trainer_of(model, masks, splits, recipe(optimizer=optimizer, weight_average=0.9))
    trainer.run_epoch(1)
    with Operators() as called:
        trainer.state()
    assert called.calls.keys() <= {"clone", "detach", "lift_fresh"}  # of a number of the host


def test_a_packed_state_holds_nothing_of_what_is_pruned(splits):
    settings = recipe(weight_average=0.9)
    model, masks = make_network(density=0.1, widening=4)
    trainer = trainer_of(model, masks, splits, settings)
    trainer.run_epoch(1)
    state = trainer.pack(trainer.state())
    for index, (name, parameter) in enumerate(model.named_parameters()):
        kept = int(masks[name].sum()) if name in masks else parameter.numel()
        for key in (f"model/{name}", f"momentum/{index}", f"average/{index}"):
            assert state[key].numel() == kept
    whole = sum(p.numel() for p in model.parameters())
    assert sum(value.numel() * value.element_size() for value in state.values()) < 4 * whole
    # What the pruned weights gathered is gone, and the run does not notice.
    trainer.run_epoch(2)
    expected = trainer.state()
    trainer.restore(trainer.unpack(state))
    momenta = [trainer.optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    for (name, _), momentum in zip(model.named_parameters(), momenta, strict=True):
        if name in masks:
            assert not momentum[~masks[name]].any()
    trainer.run_epoch(2)
    assert equal(trainer.pack(trainer.state()), trainer.pack(expected))


def test_batch_norms_count_their_batches_at_once(splits):
    """As they would by themselves, and one that reads its count does so."""

    def norms_of(network):
        return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

    plain, masks = make_network()
    norms_of(plain)[0].momentum = None
    alone = copy.deepcopy(plain)
    trainers = [trainer_of(model, masks, splits, recipe()) for model in (plain, alone)]
    trainers[1]._norms = []
    for trainer in trainers:
        trainer.run_epoch(1)
    assert equal(plain.state_dict(), alone.state_dict())
    assert all(norm.num_batches_tracked == 3 for norm in norms_of(plain))
    added = []
    for trainer in trainers:
        with Operators() as called:
            trainer.update_eagerly(torch.arange(50))
        added.append(called.calls["add_"])
    assert added[1] - added[0] == len(norms_of(plain)) - 1


def test_masks_lie_in_memory_as_their_weights_do(splits):
    """Else each of them is multiplied by itself, and a GPU starts a kernel for each layer."""
    model, masks = make_network(density=0.5)
    model = model.to(memory_format=torch.channels_last)
    trainer = trainer_of(model, masks, splits, recipe())
    pairs = list(zip(trainer._pruned, trainer._keep, strict=True))
    assert any(not weight.is_contiguous() for weight, _ in pairs)
    for weight, keep in pairs:
        assert weight.stride() == keep.stride()
    kept = {id(weight): keep for weight, keep in pairs}
    for name, weight in model.named_parameters():
        if id(weight) in kept:
            assert torch.equal(kept[id(weight)], masks[name].float())


def test_a_trainer_is_gone_when_nobody_has_it(splits):
    """Its momenta and images would stay on the device until garbage is collected."""
    model, masks = make_network(density=0.5)
    trainer = trainer_of(model, masks, splits, recipe())
    trainer.run_epoch(1)
    gone = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert gone() is None
    finally:
        gc.enable()


def test_precision_by_name(splits, monkeypatch):
    assert resolve_precision("float32", CPU) == "float32"
    assert resolve_precision("bfloat16", CPU) == "bfloat16"
    for native, meant in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native}
        )
        assert has_native_bfloat16(CPU) is native
        assert resolve_precision("auto", CPU) == meant
    model, masks = make_network()
    with pytest.raises(InputError, match=r"tf32 exists on CUDA devices only.*choose"):
        train(model, masks, splits, recipe(precision="tf32"), seed=0)
    assert train(model, masks, splits, recipe(), seed=0).facts.precision == "float32"


def test_a_normalised_set_is_not_made_for_images_that_change(splits):
    assert isinstance(splits.train, ImageSet)
    model, masks = make_network()
    assert trainer_of(model, masks, splits, recipe())._normalized is not None
    assert trainer_of(model, masks, splits, recipe(flip=True))._normalized is None
    assert loop.evaluations(recipe(epochs=0)) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_captured_steps_train_as_eager_ones(splits, precision, monkeypatch):
    """What a CUDA graph replays is what the step does, rates and random shifts included."""
    from sculpt.training.capture import capture

    splits = splits.to("cuda")
    settings = recipe(schedule="one_cycle", translate=1, precision=precision)
    states = []
    for captured in (False, True):
        model, masks = make_network(density=0.5)
        model, masks = model.cuda(), {name: mask.cuda() for name, mask in masks.items()}
        trainer = Trainer(model, masks, splits.train, settings, precision, 0)
        if captured:
            before = trainer.state()
            trainer.model.train()
            trainer.update = capture(trainer, torch.arange(50, device="cuda"))
            trainer.restore(before)
        for number in (1, 2):
            trainer.run_epoch(number)
        states.append(trainer.state())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=2e-2, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_cannot_be_captured_is_trained_eagerly(splits):
    """A capture that is broken off leaves the generators as they were."""

    class Waits(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, inputs):
            return self.model(inputs) * (1 + 0 * inputs.sum().item())

    splits = splits.to("cuda")
    model, masks = make_network(density=0.5)
    masks = {f"model.{name}": mask.cuda() for name, mask in masks.items()}
    trainer = Trainer(Waits(model).cuda(), masks, splits.train, recipe(translate=1), "float32", 0)
    before = trainer.state()
    found = choose_engine(trainer, fewest_steps=1)
    assert found["name"] == "eager"
    assert found["reason"].startswith("capturing failed")
    assert all(torch.equal(before[name], value) for name, value in trainer.state().items())
    trainer.run_epoch(1)  # draws shifts
    assert torch.randn(1, device="cuda").isfinite()
