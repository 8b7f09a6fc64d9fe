"""Prospect pruning against finite differences of whole rollouts."""

import pytest
import torch
import torch.nn.functional as F
from networks import conv_net
from torch import nn

from sculpt.errors import InputError
from sculpt.pruning.criteria.connection_sensitivity import scoring_mode
from sculpt.pruning.criteria.prospr import prospr
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask

IMAGES = torch.randn(12, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(12) % 3
RATE = 0.3


def batches():
    return list(zip(IMAGES.split(5), LABELS.split(5), strict=True))


def task(model: nn.Module) -> PruningTask:
    return PruningTask(model, 10, batches)


def trained_loss(steps, batch_norm, name=None, index=0, change=0.0):
    """The loss after steps of PyTorch's own SGD, with one weight of a fresh network scaled."""
    model, data = conv_net(), batches()
    with torch.no_grad():
        if name:
            model.get_parameter(name).view(-1)[index] *= 1 + change
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    with scoring_mode(model, batch_norm):
        for step in range(steps):
            images, labels = data[step % len(data)]
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        images, labels = data[steps % len(data)]
        return F.cross_entropy(model(images), labels).item()


@pytest.mark.parametrize("batch_norm", ["batch", "identity"])
@pytest.mark.parametrize("steps", [1, 4])
def test_scores_are_the_slope_of_the_trained_loss_along_each_mask(steps, batch_norm):
    scores = prospr(
        conv_net(), task(conv_net()), steps=steps, learning_rate=RATE, batch_norm=batch_norm
    )
    for name, score in scores.items():
        for index in (0, score.numel() // 2, score.numel() - 1):
            up, down = (
                trained_loss(steps, batch_norm, name, index, sign * 1e-5) for sign in (1, -1)
            )
            slope = abs(up - down) / 2e-5
            assert float(score.flatten()[index]) == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_without_the_meta_gradient_it_is_the_slope_at_the_trained_weights():
    model = conv_net()
    options = {"steps": 2, "learning_rate": RATE}
    scores = prospr(model, task(model), meta_gradient=False, **options)
    trained, data = conv_net(), batches()
    with scoring_mode(trained, "batch"):
        for images, labels in data[:2]:
            loss = F.cross_entropy(trained(images), labels)
            slopes = torch.autograd.grad(loss, list(trained.parameters()))
            with torch.no_grad():
                for parameter, slope in zip(trained.parameters(), slopes, strict=True):
                    parameter -= RATE * slope
        F.cross_entropy(trained(data[2][0]), data[2][1]).backward()
    for name, parameter in prunable_parameters(model).items():
        expected = (trained.get_parameter(name).grad * parameter.detach()).abs()
        torch.testing.assert_close(scores[name], expected)
    full = prospr(model, task(model), **options)
    assert not torch.allclose(full["0.weight"], scores["0.weight"])


def test_frozen_weights_take_no_steps_and_have_no_score():
    model = conv_net()
    model[4].requires_grad_(False)
    scores = prospr(model, task(model), steps=2, learning_rate=RATE)
    assert list(scores) == ["0.weight", "0.bias"]
    assert all(score.isfinite().all() for score in scores.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1 and learning_rate above 0, but got steps 0"),
        ({"learning_rate": 0.0}, r"learning_rate 0\.0"),
        ({"targets": "pred_raw"}, "targets must be one of gt, uniform"),
        ({"batch_norm": "train"}, "batch_norm must be one of identity, batch, warm_up"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        prospr(conv_net(), task(conv_net()), **options)
