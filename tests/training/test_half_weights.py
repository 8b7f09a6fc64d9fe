"""Weights in bfloat16 for a step: the same, bit for bit, as those that autocast makes."""

import pytest
import torch
from small_training import make_network, recipe
from torch import nn
from torch.nn.utils import parametrizations

from sculpt.training import trainer as trainer_module
from sculpt.training.half_weights import HalfWeights
from sculpt.training.trainer import Trainer


class Varied(nn.Module):
    """Biases, shared and parametrised weights, and a layer of a subclass that reads its weight."""

    class Scaled(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs) / self.weight.norm()

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.normed = parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1, bias=False))
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.scaled = self.Scaled(4, 10)

    def forward(self, images):
        found = self.normed(self.conv(images).relu()).relu().mean((2, 3))
        return self.scaled(self.frozen(self.other(self.one(found).relu())))


def varied():
    torch.manual_seed(3)
    model = Varied()
    return model, {"conv.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)}


def trained(make, splits, monkeypatch, *, by_hand, parts=1, **changes):
    """Return the state after an epoch, with the copies or by autocast alone."""
    precision = "bfloat16" if by_hand else "float32"
    monkeypatch.setattr(
        trainer_module, "HalfWeights", lambda model, _: HalfWeights(model, precision)
    )
    model, masks = make()
    trainer = Trainer(model, masks, splits.train, recipe(**changes), "bfloat16", 0)
    trainer.micro_batches = parts
    trainer.run_epoch(1)
    return trainer.state()


@pytest.mark.parametrize("make", [lambda: make_network(0.5), varied])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"max_gradient_norm": 0.1}, {"optimizer": "adamw"}])
def test_steps_are_the_same_as_by_autocast_alone(make, parts, changes, splits, monkeypatch):
    one, other = (
        trained(make, splits, monkeypatch, by_hand=by_hand, parts=parts, **changes)
        for by_hand in (True, False)
    )
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_what_autocast_would_not_cast_alone_is_left_to_it():
    model, _ = varied()
    halves = HalfWeights(model, "bfloat16")
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    with halves.in_place():
        half = {n for n, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert half == {
        "conv.weight",
        "conv.bias",
        "one.bias",
        "other.bias",
        "frozen.weight",
        "frozen.bias",
    }
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    with HalfWeights(model, "float32").in_place():
        assert all(p.dtype == torch.float32 for p in model.parameters())


def test_an_error_in_the_forward_pass_leaves_the_parameters_as_they_were():
    model, _ = make_network()
    before = list(map(id, model.parameters()))
    with pytest.raises(ZeroDivisionError), HalfWeights(model, "bfloat16").in_place():
        _ = 1 / 0
    assert list(map(id, model.parameters())) == before


def test_a_part_of_a_batch_adds_to_the_gradients_of_those_before():
    layer = nn.Linear(3, 2)
    halves = HalfWeights(layer, "bfloat16")
    inputs = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    for _ in range(2):
        with halves.in_place():
            outputs = layer(inputs)
        outputs.sum().backward()
        halves.hand_over_gradients()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.tolist() == [[2.0, 4.0, 6.0]] * 2
    # And those of the copies are gone, or they would count twice.
    halves.hand_over_gradients()
    assert layer.weight.grad.tolist() == [[2.0, 4.0, 6.0]] * 2


def test_a_step_that_was_broken_off_leaves_no_gradient():
    """Out of memory in a backward pass, which is taken again with less of it."""
    layer = nn.Linear(3, 2)
    halves = HalfWeights(layer, "bfloat16")
    inputs = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    for is_broken_off in (True, False):
        halves.update()
        with halves.in_place():
            outputs = layer(inputs)
        outputs.sum().backward()
        if not is_broken_off:
            halves.hand_over_gradients()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 2.0, 3.0]] * 2
