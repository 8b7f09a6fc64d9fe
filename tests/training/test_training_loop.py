"""The loop trains as plain SGD does, on paired batches, and never revives a pruned weight."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import appearance, equal
from small_training import make_network, recipe, record_inputs
from torch import nn

from sculpt.data import blend_share
from sculpt.pruning.masks import dense_masks
from sculpt.record import Epoch
from sculpt.seeding import derive_seed
from sculpt.training.loop import evaluations, train
from sculpt.training.loss_and_error import evaluate
from sculpt.training.schedules import rate_factor


def rows(images):
    """The images of a batch as a sorted list of tuples: a multiset."""
    return sorted(map(tuple, images.flatten(1).tolist()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_pruned_weights_are_zero_after_every_step(splits, precision, nesterov):
    model, masks = make_network(density=0.3)
    before = copy.deepcopy(masks)
    initial = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    alive = []

    def count_revived(module, _):
        parameters = dict(module.named_parameters())
        alive.append(
            sum(int(parameters[name][~mask].count_nonzero()) for name, mask in masks.items())
        )

    # Each pass after the first sees the weights as the step before left them.
    model.register_forward_pre_hook(count_revived)
    settings = recipe(
        momentum=0.9, weight_decay=0.01, nesterov=nesterov, learning_rate=0.1, precision=precision
    )
    train(model, masks, splits, settings, seed=0)
    assert alive == [0] * (2 * (3 + 1))  # per epoch three steps and one evaluation
    assert masks.keys() == before.keys()
    assert all(torch.equal(masks[name], before[name]) for name in masks)
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        assert parameters[name].dtype == torch.float32
        if mask.dim() > 1:
            assert (parameters[name] != initial[name])[mask].all(), name


def test_networks_of_one_seed_see_the_same_batches(splits):
    settings = recipe(flip=True, translate=1, cutout=2)
    recorded = []
    for options in ({}, {"widening": 2, "density": 0.2}):
        model, masks = make_network(**options)
        recorded.append(record_inputs(model))
        torch.manual_seed(len(recorded))  # the global stream must have no say
        train(model, masks, splits, settings, seed=7)
    one, other = recorded
    assert len(one) == len(other) == 6
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_each_seed_and_each_epoch_has_an_order_of_its_own(splits):
    recorded = []
    for seed in (0, 1):
        model, masks = make_network()
        recorded.append(record_inputs(model))
        train(model, masks, splits, recipe(epochs=3), seed=seed)
    epochs = [
        torch.cat(inputs[start : start + 3]) for inputs in recorded for start in range(0, 9, 3)
    ]
    everything = rows(splits.train.inputs(slice(None)))
    assert all(rows(epoch) == everything for epoch in epochs)
    for index, epoch in enumerate(epochs):
        assert not any(torch.equal(epoch, other) for other in epochs[:index])


def test_augmentation_follows_its_options(splits):
    originals = splits.train.inputs(slice(None))
    plain, mirrored = set(rows(originals)), set(rows(originals.flip(3)))
    seen = {}
    for name, options in {
        "none": {},
        "flip": {"flip": True},
        "translate": {"translate": 2},
        "cutout": {"cutout": 3},
    }.items():
        model, masks = make_network()
        inputs = record_inputs(model)
        train(model, masks, splits, recipe(epochs=1, **options), seed=0)
        seen[name] = set(rows(torch.cat(inputs)))
    assert seen["none"] == plain
    assert seen["flip"] <= plain | mirrored
    # Half of 150 images; 45 is five standard deviations below.
    assert 45 < len(seen["flip"] - plain) < 105
    assert len(seen["translate"] - plain) > 100
    assert len(seen["cutout"] - plain) > 100
    assert seen["translate"].isdisjoint(seen["cutout"])


def test_each_seed_and_each_epoch_is_augmented_anew(splits):
    """All images are one and the same, so that their order cannot make the difference."""
    copies = splits.train.images[:1].repeat(150, 1, 1, 1)
    uniform = replace(splits, train=replace(splits.train, images=copies))
    recorded = []
    for seed in (0, 0, 1):
        model, masks = make_network()
        recorded.append(record_inputs(model))
        train(model, masks, uniform, recipe(translate=2), seed=seed)
    first, again, other = ([torch.cat(inputs[i : i + 3]) for i in (0, 3)] for inputs in recorded)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_the_mode_that_a_network_comes_in_does_not_matter(splits):
    (training, masks), (inference, _) = make_network(), make_network()
    train(training.train(), masks, splits, recipe(), seed=0)
    train(inference.eval(), masks, splits, recipe(), seed=0)
    assert equal(training.state_dict(), inference.state_dict())
    assert training.stem.norm.num_batches_tracked == 6


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(64, [64, 64]), (149, [149]), (150, [150]), (1000, [150])]
)
def test_only_a_last_smaller_batch_is_left_out(splits, batch_size, sizes):
    model, masks = make_network()
    inputs = record_inputs(model)
    history = train(model, masks, splits, recipe(epochs=2, batch_size=batch_size), seed=0).history
    assert [len(batch) for batch in inputs] == sizes * 2
    # Errors are over the images that were seen.
    wrong = [epoch.train_error * sum(sizes) for epoch in history]
    assert wrong == pytest.approx([round(count) for count in wrong])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_in_training_alone(splits, smoothing):
    model, masks = make_network()
    inputs, labels = splits.train.inputs(slice(None)), splits.train.labels
    with torch.no_grad():
        logits = copy.deepcopy(model).train()(inputs)
    settings = recipe(epochs=1, batch_size=150, label_smoothing=smoothing)
    (epoch,) = train(model, masks, splits, settings, seed=0).history
    log_probabilities = logits.log_softmax(1)
    likelihood = log_probabilities.gather(1, labels[:, None]).mean()
    expected = -(1 - smoothing) * likelihood - smoothing * log_probabilities.mean()
    assert epoch.train_loss == pytest.approx(expected.item(), rel=1e-5)
    assert epoch.train_error == pytest.approx((logits.argmax(1) != labels).double().mean().item())
    with torch.no_grad():
        validation = F.cross_entropy(
            model.eval()(splits.validation.inputs(slice(None))), splits.validation.labels
        )
    assert epoch.val_loss == pytest.approx(validation.item(), rel=1e-5)


def test_bfloat16_is_used_for_activations_alone(splits):
    types = {}
    states = []
    for precision in ("float32", "bfloat16"):
        model, masks = make_network(density=0.5)
        outputs = []
        model.register_forward_hook(
            lambda _, __, output, outputs=outputs: outputs.append(output.dtype)
        )
        history = train(model, masks, splits, recipe(precision=precision), seed=0).history
        types[precision] = set(outputs)
        states.append(model)
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        assert all(math.isfinite(epoch.val_loss) for epoch in history)
    assert types == {"float32": {torch.float32}, "bfloat16": {torch.bfloat16}}
    assert not equal(*(model.state_dict() for model in states))
    one, other = (state.stem.conv.weight for state in states)
    assert torch.allclose(one, other, atol=0.05)


def test_a_seed_gives_the_same_network_bit_for_bit(splits):
    settings = recipe(translate=1, flip=True)
    states, histories = [], []
    for seed in (3, 3, 4):
        model, masks = make_network(density=0.5)
        history = train(model, masks, splits, settings, seed=seed).history
        histories.append([replace(epoch, seconds=0, images_per_second=0) for epoch in history])
        states.append(model.state_dict())
    assert equal(states[0], states[1])
    assert histories[0] == histories[1]
    assert not equal(states[0], states[2])
    assert histories[0] != histories[2]


@pytest.mark.parametrize(
    ("batch_size", "loss"),
    [
        (50, "training"),
        (150, "validation"),  # the only step of the pass is what breaks the network
    ],
)
def test_divergence_ends_the_run_and_is_its_outcome(splits, batch_size, loss):
    model, masks = make_network()
    heard = []
    settings = recipe(epochs=3, batch_size=batch_size, learning_rate=1e30)
    trained = train(model, masks, splits, settings, seed=0, on_epoch=heard.append)
    assert trained.diverged
    assert trained.history == heard
    (epoch,) = heard
    assert epoch.epoch == 1
    assert epoch.val_loss is None
    assert (epoch.train_loss is None) == (loss == "training")
    # A network whose logits are not numbers is wrong about every image.
    assert epoch.val_error == 1


def test_divergence_in_a_later_epoch_is_found_there(splits):
    model, masks = make_network()

    def poison(epoch):
        if epoch.epoch == 2:
            model.stem.conv.weight.data[0, 0, 0, 0] = math.nan

    trained = train(model, masks, splits, recipe(epochs=5), seed=0, on_epoch=poison)
    assert trained.diverged
    assert [epoch.train_loss is None for epoch in trained.history] == [False, False, True]


def test_every_epoch_is_reported_as_it_stands(splits):
    model, masks = make_network(density=0.5)
    heard = []

    def listen(epoch):
        assert isinstance(epoch, Epoch)
        assert (epoch.val_loss, epoch.val_error) == evaluate(model, splits.validation)
        heard.append(epoch)

    settings = recipe(epochs=4, schedule="step", learning_rate=0.1)
    history = train(model, masks, splits, settings, seed=0, on_epoch=listen).history
    assert history == heard
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4]
    assert [epoch.learning_rate for epoch in history] == pytest.approx([0.1, 0.01, 1e-3, 1e-4])
    for epoch in history:
        assert 0 <= epoch.train_error <= 1
        assert 0 <= epoch.val_error <= 1
        assert epoch.train_loss > 0
        assert epoch.seconds > 0
        assert epoch.images_per_second > 0
    assert history[-1].train_loss < history[0].train_loss


def test_the_rate_reported_is_that_of_the_last_step(splits):
    """One epoch of four steps under `step`: the fourth step is at a thousandth."""
    model, masks = make_network()
    settings = recipe(epochs=1, batch_size=37, schedule="step", learning_rate=0.1)
    (epoch,) = train(model, masks, splits, settings, seed=0).history
    assert epoch.learning_rate == pytest.approx(1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_training_is_plain_sgd(splits, nesterov, schedule):
    """The oracle: the textbook update, on batches taken from the documented stream."""
    settings = recipe(
        epochs=4, batch_size=64, nesterov=nesterov, schedule=schedule, weight_decay=0.01
    )
    model, masks = make_network()
    oracle = copy.deepcopy(model).train()
    history = train(model, masks, splits, settings, seed=5).history
    velocity = {name: torch.zeros_like(value) for name, value in oracle.named_parameters()}
    losses = []
    for epoch in range(1, 5):
        generator = torch.Generator().manual_seed(derive_seed(5, "data order", epoch))
        order = torch.randperm(150, generator=generator)
        rate = 0.05 * 0.1 ** (epoch - 1) if schedule == "step" else 0.05
        losses.append(0.0)
        for batch in (order[:64], order[64:128]):
            oracle.zero_grad()
            loss = F.cross_entropy(oracle(splits.train.inputs(batch)), splits.train.labels[batch])
            loss.backward()
            losses[-1] += loss.item() / 2
            with torch.no_grad():
                for name, value in oracle.named_parameters():
                    gradient = value.grad + 0.01 * value
                    velocity[name] = 0.9 * velocity[name] + gradient
                    step = gradient + 0.9 * velocity[name] if nesterov else velocity[name]
                    value -= rate * step
    expected = oracle.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6, msg=name)
    assert [epoch.train_loss for epoch in history] == pytest.approx(losses, rel=1e-5)


def test_training_is_plain_adamw(splits):
    """The oracle: PyTorch's own optimiser, with a blend of each batch and its reverse."""
    blends = {"mixup": 0.7, "cutmix": 1.0}
    settings = recipe(
        epochs=3,
        batch_size=64,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.1,
        schedule="cosine",
        warm_up=0.2,
        label_smoothing=0.1,
        **blends,
    )
    model, masks = make_network()
    oracle = copy.deepcopy(model).train()
    train(model, masks, splits, settings, seed=5)
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=1e-3, weight_decay=0.1)
    step = 0
    for epoch in range(1, 4):
        generator = torch.Generator().manual_seed(derive_seed(5, "data order", epoch))
        order = torch.randperm(150, generator=generator)
        for batch in (order[:64], order[64:128]):
            images, labels = splits.train.inputs(batch), splits.train.labels[batch]
            draws = np.random.default_rng(derive_seed(5, "blends", step))
            share = blend_share((1, 8, 8), **blends, draws=draws)
            optimizer.param_groups[0]["lr"] = 1e-3 * rate_factor("cosine", step, 6, 0.2)
            optimizer.zero_grad()
            logits = oracle(share * images + (1 - share) * images.flip(0))
            own, other = (
                F.cross_entropy(logits, target, label_smoothing=0.1)
                for target in (labels, labels.flip(0))
            )
            (share.mean() * own + (1 - share.mean()) * other).backward()
            optimizer.step()
            step += 1
    expected = oracle.state_dict()
    for name, value in model.state_dict().items():
        # Rounding is all of the gradient of a bias in front of a batch norm.
        if not name.endswith(("conv.bias", "running_mean")):
            near = {"rtol": 1e-3, "atol": 1e-4}
            torch.testing.assert_close(value, expected[name], **near, msg=name)


@pytest.mark.parametrize(
    ("epochs", "every", "evaluated"),
    [(5, 1, [1, 2, 3, 4, 5]), (5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 9, [3]), (0, 1, [0])],
)
def test_it_is_evaluated_as_often_as_asked(splits, epochs, every, evaluated):
    model, masks = make_network()
    told = []
    settings = recipe(epochs=epochs, evaluate_every=every)
    history = train(model, masks, splits, settings, seed=0, on_epoch=told.append).history
    assert [epoch.epoch for epoch in history] == evaluated
    assert len(history) == evaluations(settings)
    assert told == (history if epochs else [])


def test_evaluating_less_often_changes_nothing_else(splits):
    networks = []
    for every in (1, 3):
        model, masks = make_network(density=0.5)
        settings = recipe(epochs=3, evaluate_every=every)
        networks.append((model, train(model, masks, splits, settings, seed=0).history[-1]))
    assert equal(networks[0][0].state_dict(), networks[1][0].state_dict())
    assert networks[0][1].val_error == networks[1][1].val_error
    assert networks[0][1].train_loss == networks[1][1].train_loss


def test_without_epochs_nothing_is_trained(splits):
    model, masks = make_network()
    before = appearance(model)
    (only,) = train(model, masks, splits, recipe(epochs=0), seed=0).history
    assert appearance(model) == before
    assert (only.val_loss, only.val_error) == evaluate(model, splits.validation)
    assert only.train_loss is only.train_error is only.images_per_second is None


def test_the_published_protocol_reads_the_test_images_at_every_evaluation(splits):
    model, masks = make_network()
    kept = []

    def listen(epoch):
        kept.append(evaluate(model, splits.test)[1])

    settings = recipe(epochs=3, protocol="lowest_test")
    history = train(model, masks, splits, settings, seed=0, on_epoch=listen).history
    assert [epoch.test_error for epoch in history] == kept
    other, masks = make_network()
    train(other, masks, splits, recipe(epochs=3), seed=0)
    assert equal(model.state_dict(), other.state_dict())  # reading them changes nothing


@pytest.mark.parametrize(
    ("width", "stride", "unsound"), [(4, 2, True), (4, 1, False), (16, 2, False)]
)
def test_gradients_that_onednn_computes_wrongly_are_computed_without_it(
    splits, width, stride, unsound
):
    """It ends the process for some of these networks, where it does not only miscompute."""
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 8, 1, stride, bias=False)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    model.to(memory_format=torch.channels_last)
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.backends.mkldnn.enabled))
    trained = train(model, dense_masks(model), splits, recipe(epochs=2), seed=0)
    assert set(seen) == {not unsound}
    assert torch.backends.mkldnn.enabled
    assert trained.history[-1].train_loss < trained.history[0].train_loss


def test_images_normalised_once_are_those_normalised_each_time(splits, monkeypatch):
    networks = []
    for most in (2**30, 0):
        monkeypatch.setattr("sculpt.training.trainer.MOST_BYTES_NORMALIZED", most)
        model, masks = make_network(density=0.5)
        train(model, masks, splits, recipe(), seed=0)
        networks.append(model)
    assert equal(*(network.state_dict() for network in networks))
