"""Evaluation is a plain mean over images, and leaves no trace in the network."""

import pytest
import torch
import torch.nn.functional as F
from networks import appearance
from small_training import make_network
from torch import nn

from sculpt.training.loss_and_error import evaluate


@pytest.fixture
def model(splits):
    """A network whose batch norm has seen something."""
    model, _ = make_network()
    with torch.no_grad():
        for start in (0, 50, 100):
            model.train()(splits.train.inputs(slice(start, start + 50)))
    return model


def one_by_one(model, images):
    """The oracle: one image at a time, in float64."""
    loss, wrong = 0.0, 0
    model.eval()
    with torch.no_grad():
        for index, label in enumerate(images.labels.tolist()):
            (logits,) = model(images.inputs(slice(index, index + 1))).double()
            loss += float(torch.logsumexp(logits, 0) - logits[label])
            wrong += int(logits.argmax()) != label
    return loss / len(images), wrong / len(images)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_loss_and_error_are_means_over_images(model, splits, batch_size):
    loss, error = evaluate(model, splits.validation, batch_size=batch_size)
    expected_loss, expected_error = one_by_one(model, splits.validation)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert error == pytest.approx(expected_error)
    assert 0 < error < 1


def test_nothing_of_the_network_changes_and_its_mode_does_not_matter(model, splits):
    found = []
    for training in (True, False):
        before = appearance(model.train(training))
        found.append(evaluate(model, splits.validation))
        assert appearance(model) == before
    assert found[0] == found[1]


def test_bfloat16_is_close_but_not_the_same(model, splits):
    exact, _ = evaluate(model, splits.validation)
    rounded, _ = evaluate(model, splits.validation, precision="bfloat16")
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


def test_what_a_network_draws_in_inference_is_the_same_each_time(splits):
    """Dropout by its function is on in any mode, unless it is told otherwise."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_forward_hook(lambda module, inputs, output: F.dropout(output, 0.5))
    before = torch.random.get_rng_state()
    first = evaluate(model, splits.validation)
    torch.rand(7)
    assert evaluate(model, splits.validation) == first
    torch.random.set_rng_state(before)
    evaluate(model, splits.validation)
    assert torch.equal(torch.random.get_rng_state(), before), "others draw as they did"
